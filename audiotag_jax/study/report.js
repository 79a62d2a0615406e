"use strict";
// Tables sort by any column: numbers where a cell has data-value, else text; what has no value comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const original = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined) return way * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
        if (x === "" || y === "") return (x === "") - (y === "");
        return way * (Number(x) - Number(y));
      };
      body.append(...original.slice().sort(compare));
    });
  });
}
// A chooser shows what belongs to one variant: whatever has data-variant within the section it stands in.
for (const chooser of document.querySelectorAll(".chooser")) {
  const section = chooser.closest("section");
  const select = chooser.querySelector("select");
  const status = section.querySelector("[role=status]");
  const articles = [...section.querySelectorAll("article")];
  const show = () => {
    for (const each of section.querySelectorAll("[data-variant]")) each.hidden = each.dataset.variant !== select.value;
    const rank = (article) => {
      const figure = [...article.querySelectorAll("[data-variant]")].find((each) => !each.hidden);
      return figure ? Number(figure.dataset.rank) : Infinity;
    };
    for (const article of articles) {
      article.hidden = rank(article) === Infinity;
      if (article.hidden) article.querySelector("audio")?.pause();
    }
    const ordered = articles.slice().sort((a, b) => rank(a) - rank(b) || 0);
    if (articles.length) section.append(...ordered);
    if (status) status.textContent = `${articles.filter((each) => !each.hidden).length} mistakes of ${select.value}`;
  };
  chooser.hidden = false;
  select.addEventListener("change", show);
  window.addEventListener("pageshow", show);
  show();
}
// One sound at a time.
document.addEventListener("play", (event) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);
