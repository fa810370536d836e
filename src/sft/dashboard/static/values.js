// Values of settings as text, the way they are written in a configuration file.

// What a source of data has unasked; written only where it differs.
const SOURCE = { weight: 1, format: "auto", columns: {}, split: "train", subset: null, streaming: false, max_rows: null };

const isSource = (value) => value !== null && typeof value === "object" && typeof value.path === "string";

function sourceText(source) {
  const extras = Object.entries(source).filter(([name, value]) => name !== "path" && JSON.stringify(value) !== JSON.stringify(SOURCE[name] ?? null));
  return [source.path, ...extras.map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)].join(", ");
}

/** `value` as text: sources of data by their path, texts without quotes, the rest as JSON. */
export function valueText(value) {
  if (value === null || value === undefined) return "null";
  if (typeof value === "string") return value === "" ? '""' : value;
  if (Array.isArray(value) && value.length && value.every(isSource)) return value.map(sourceText).join("; ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A title with the whole value, where `valueText` left something out; else null. */
export const wholeText = (value) => (Array.isArray(value) && value.some(isSource) ? JSON.stringify(value, null, 1) : null);
