"use strict";
// Text of the data reaches the page through textContent and createTextNode only.
(() => {
  const PER_PAGE = 10;
  const WORDS = { trained: "trained", partly: "partly trained", masked: "shown only" };
  const rows = JSON.parse(document.getElementById("data").textContent).rows;
  const get = (id) => document.getElementById(id);

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // ------------------------------------------------------------ a row

  // Line breaks and tabs are marked by the style sheet, so that copied text stays as it is.
  const addText = (parent, text) => {
    for (const part of text.split(/([\n\t])/)) {
      if (part === "\n") parent.append(make("span", "nl"));
      if (part === "\t") parent.append(make("span", "tab"));
      if (part) parent.append(part);
    }
  };

  const addFound = (parent, text, query) => {
    const lower = text.toLowerCase();
    // Lower case of some letters is longer: then places do not match, and nothing is marked.
    if (!query || lower.length !== text.length) return addText(parent, text);
    let from = 0;
    for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
      addText(parent, text.slice(from, at));
      const mark = make("mark");
      addText(mark, text.slice(at, at + query.length));
      parent.append(mark);
      from = at + query.length;
    }
    addText(parent, text.slice(from));
  };

  const badge = (serving) => {
    if (serving === null) return make("span", "served unknown", "serving: not measured");
    if (serving) return make("span", "served differs", "served differently");
    return make("span", "served", "same tokens when serving");
  };

  const draw = (row, query) => {
    const card = make("article", "row");
    const head = make("header");
    const count = `${row.tokens.toLocaleString("en")} tokens, ${row.trained.toLocaleString("en")} trained`;
    head.append(make("h3", "", row.id), make("span", "", count), badge(row.serving));
    card.append(head);
    if (row.serving) card.append(make("p", "reason", `When serving: ${row.serving}`));
    if (row.named.length) card.append(make("p", "reason named", `Named by: ${row.named.join(", ")}`));
    const text = make("div", "tokens");
    text.tabIndex = 0;
    text.setAttribute("role", "region");
    text.setAttribute("aria-label", `Tokens of ${row.id}`);
    for (const [piece, kind, special] of row.pieces) {
      const span = make("span", special ? `t ${kind} special` : `t ${kind}`);
      span.title = WORDS[kind];
      addFound(span, piece, query);
      text.append(span);
    }
    card.append(text);
    return card;
  };

  // ------------------------------------------------------------ search

  const FILTERS = {
    all: () => true,
    named: (row) => row.named.length > 0,
    differs: (row) => Boolean(row.serving),
    partly: (row) => row.pieces.some((piece) => piece[1] === "partly"),
  };
  const texts = [];
  const textOf = (i) => {
    texts[i] ??= rows[i].pieces.map((piece) => piece[0]).join("").toLowerCase();
    return texts[i];
  };
  let found = [];
  let first = 0;

  const show = () => {
    const last = Math.min(first + PER_PAGE, found.length);
    const text = get("query").value.trim().toLowerCase();
    get("list").replaceChildren(...found.slice(first, last).map((i) => draw(rows[i], text)));
    get("found").textContent = found.length
      ? `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`
      : "No row of this page matches. Others: sft check … --row file:line, or --search TEXT";
    get("page").textContent = found.length ? `${first + 1} to ${last}` : "";
    get("previous").disabled = first === 0;
    get("next").disabled = last === found.length;
  };

  const search = () => {
    const text = get("query").value.trim().toLowerCase();
    const keep = FILTERS[get("filter").value];
    const exact = (row) => row.id.toLowerCase() === text || row.id.toLowerCase().startsWith(`${text}#`);
    const kept = [...rows.keys()].filter((i) => keep(rows[i]));
    const named = text ? kept.filter((i) => exact(rows[i])) : [];
    found = named.length
      ? named
      : kept.filter((i) => rows[i].id.toLowerCase().includes(text) || textOf(i).includes(text));
    first = 0;
    show();
  };

  const turn = (by) => {
    first += by;
    show();
    get("search").scrollIntoView();
  };

  if (rows.length) {
    get("search").hidden = false;
    get("query").addEventListener("input", search);
    get("filter").addEventListener("change", search);
    get("previous").addEventListener("click", () => turn(-PER_PAGE));
    get("next").addEventListener("click", () => turn(PER_PAGE));
    for (const link of document.querySelectorAll("a[data-row]")) {
      link.addEventListener("click", () => {
        get("query").value = link.dataset.row;
        get("filter").value = "all";
        search();
        get("query").focus({ preventScroll: true });
      });
    }
    search();
  }

  // ------------------------------------------------------------ copying, printing

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
