/** HTML that cannot be injected into: whatever is put into the template is escaped, unless it is itself a template. */

/** Markup that may stand in a page as it is. Only `html` makes it. */
export class Html {
  readonly #text: string;

  constructor(strings: TemplateStringsArray, values: readonly Value[]) {
    this.#text = String.raw({ raw: strings }, ...values.map(render));
  }

  toString(): string {
    return this.#text;
  }
}

export type Value = Html | string | number | null | false | undefined | readonly Value[];

const ESCAPES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", "`": "&#96;" };

export function escape(text: string): string {
  return text.replace(/[&<>"'`]/g, (character) => ESCAPES[character]!).replaceAll("\0", "\uFFFD");
}

function render(value: Value): string {
  if (value instanceof Html) return value.toString();
  if (Array.isArray(value)) return value.map(render).join("");
  return value === null || value === undefined || value === false ? "" : escape(String(value));
}

/** Markup with escaped values. Attributes must stand in double quotes. null, undefined and false leave nothing. */
export function html(strings: TemplateStringsArray, ...values: readonly Value[]): Html {
  return new Html(strings, values);
}
