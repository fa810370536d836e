// Files that a reader takes along: a picture of a chart, and the numbers behind it.

/** Offers `content` (a Blob) as a download. */
function offer(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name.replace(/[^\w.-]+/g, "-").slice(-120);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A data URL as bytes; `fetch` of one is forbidden by the Content-Security-Policy. */
function bytesOf(dataUrl) {
  const text = atob(dataUrl.slice(dataUrl.indexOf(",") + 1));
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

export async function savePicture(chart, title, name) {
  offer(new Blob([bytesOf(await chart.image(title))], { type: "image/png" }), `${name}.png`);
}

/** One row a point: `series,step,x,value`, without x where that is the step. Names are those of metrics, so no cell can be a formula. */
export function saveTable(series, x, name) {
  const wide = x !== "step";
  const rows = [["series", "step", ...(wide ? [x] : []), "value"].join(",")];
  for (const { name: column, points } of series) {
    points.x.forEach((at, i) => {
      if (points.y[i] !== null) rows.push([column, points.step?.[i] ?? "", ...(wide ? [at] : []), points.y[i]].join(","));
    });
  }
  offer(new Blob([rows.join("\n") + "\n"], { type: "text/csv" }), `${name}.csv`);
}
