/** How tables are named. */

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

export function tableKey(table: TableName): string {
  return `${table.schema}.${table.name}`;
}
