// Keys that work on every screen, and the list that `?` shows.

export const HELP = [
  [["1", "…", "6"], "Run, Guards, Samples, Data, Config, Events"],
  [["0"], "All runs"],
  [["/"], "Search"],
  [["←", "→"], "Move the cursor on a chart; with Shift in larger steps, Home and End to the ends"],
  [["l"], "Logarithmic axis of the loss"],
  [["+", "−"], "Zoom the charts in on the cursor, and out again"],
  [["s"], "Save the loss chart as PNG"],
  [["[", "]"], "Previous and next row, on Data"],
  [["f"], "Follow what is written, or pause, on Events"],
  [["Esc"], "Leave the cursor, the zoom, the search or this list"],
  [["?"], "This list"],
];

const typing = (node) => /^(input|select|textarea)$/i.test(node.tagName) && !/^(checkbox|button|range)$/.test(node.type);

/** Does what a key means by one of `actions`; true when it was used. */
export function routeKey(event, actions) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return false;
  if (typing(event.target)) {
    if (event.key !== "Escape") return false;
    event.target.blur();
    return true;
  }
  if (/^[1-6]$/.test(event.key)) actions.tab(Number(event.key) - 1);
  else if (event.key === "0") actions.home();
  else if (event.key === "/") actions.search();
  else if (event.key === "?") actions.help();
  else return false;
  return true;
}
