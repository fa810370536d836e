// The rows of the page: search, filter, pages of ten. check/page.py puts dom.js, prose.js and
// pieces.js of `sft watch` before it: text of the data reaches the page through text nodes only.
(() => {
  const PER_PAGE = 10;
  const rows = JSON.parse(document.getElementById("data").textContent).rows;
  const get = (id) => document.getElementById(id);
  const count = (number) => number.toLocaleString("en");

  const badge = (serving) => {
    if (serving === null) return h("span", { class: "served unknown" }, "serving: not measured");
    if (serving) return h("span", { class: "served differs" }, "served differently");
    return h("span", { class: "served" }, "same tokens when serving");
  };

  const draw = (row, query) => h("article", { class: "row" },
    h("header", null, h("h3", null, row.id),
      h("span", null, `${count(row.tokens)} tokens, ${count(row.trained)} trained`), badge(row.serving)),
    row.serving && h("p", { class: "reason" }, `When serving: ${row.serving}`),
    row.named.length > 0 && h("p", { class: "reason named" }, `Named by: ${row.named.join(", ")}`),
    h("div", { class: "tokens", tabindex: 0, role: "region", "aria-label": `Tokens of ${row.id}` }, row.pieces.map((one) => piece(one, query))));

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
      ? `${count(found.length)} of ${count(rows.length)} rows`
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
