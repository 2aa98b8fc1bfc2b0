/**
 * An event trigger on the source that writes schema changes of mapped tables into the log, so that the mirror stops exactly there.
 *
 * Optional: without it a change is noticed at the next row of the table or within seconds by the catalogue, and a rewrite
 * (`ALTER … TYPE … USING v * 10`) is not in the log at all.
 */
import { OWN_DDL } from "./freeze-sql.ts";
import { quoteIdent, quoteLiteral } from "./identifiers.ts";
import { DDL_PREFIX } from "./pgoutput.ts";

const SCHEMA = "dualrun_source";

/** Statements that install it for the tables of a publication. Only a superuser may (on managed clouds their administrative role). */
export function installDdlTrigger(publication: string): string[] {
  const name = quoteIdent(publication);
  return [
    `CREATE SCHEMA IF NOT EXISTS ${SCHEMA}`,
    `CREATE OR REPLACE FUNCTION ${SCHEMA}.${name}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $announce$
DECLARE
  changed oid[] := CASE TG_EVENT WHEN 'table_rewrite' THEN ARRAY[pg_event_trigger_table_rewrite_oid()]
    ELSE ARRAY(SELECT c.objid FROM pg_event_trigger_ddl_commands() AS c WHERE c.classid = 'pg_class'::regclass AND c.object_type IN ('table', 'table column')) END;
BEGIN
  IF current_setting('${OWN_DDL}', true) = 'on' THEN RETURN; END IF;
  PERFORM pg_logical_emit_message(true, ${quoteLiteral(DDL_PREFIX)}, n.nspname || '.' || t.relname || E'\\n' || TG_TAG
    || CASE TG_EVENT WHEN 'table_rewrite' THEN ' rewrites the table: values may have changed without a trace in the log, copy the class again with dualrun resnapshot' ELSE '' END)
  FROM pg_publication AS p JOIN pg_publication_rel AS r ON r.prpubid = p.oid JOIN pg_class AS t ON t.oid = r.prrelid JOIN pg_namespace AS n ON n.oid = t.relnamespace
  WHERE p.pubname = ${quoteLiteral(publication)} AND (r.prrelid = ANY (changed) OR r.prrelid IN (SELECT pg_partition_root(part) FROM unnest(changed) AS part));
END $announce$`,
    `DROP EVENT TRIGGER IF EXISTS ${name}`,
    `DROP EVENT TRIGGER IF EXISTS ${quoteIdent(`${publication}_rewrite`)}`,
    `CREATE EVENT TRIGGER ${name} ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION ${SCHEMA}.${name}()`,
    `CREATE EVENT TRIGGER ${quoteIdent(`${publication}_rewrite`)} ON table_rewrite EXECUTE FUNCTION ${SCHEMA}.${name}()`,
  ];
}

export function removeDdlTrigger(publication: string): string[] {
  const name = quoteIdent(publication);
  return [
    `DROP EVENT TRIGGER IF EXISTS ${name}`, `DROP EVENT TRIGGER IF EXISTS ${quoteIdent(`${publication}_rewrite`)}`,
    `DROP FUNCTION IF EXISTS ${SCHEMA}.${name}()`,
  ];
}
