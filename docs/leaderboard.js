// Sorts and filters the leaderboard of the first page. Without this script it is a plain table.
"use strict";
(() => {
  const root = document.getElementById("rows");
  if (root === null) return;
  const tables = [...root.querySelectorAll("table")];

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  // sorting, within each data set: values on different ones are not comparable

  const groups = new Map(); // tbody → its lines in the order of the page
  for (const body of root.querySelectorAll("tbody")) groups.set(body, [...body.rows]);
  const isRow = (line) => line.className === "";

  function valueAt(line, index) {
    const cell = line.cells[index];
    return cell.classList.contains("n") ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent.trim();
  }

  function compare(a, b, down) {
    const emptyA = a === null || a === "", emptyB = b === null || b === "";
    if (emptyA || emptyB) return emptyA - emptyB; // missing values come last in either direction
    const order = typeof a === "number" ? a - b : a.localeCompare(b, "en");
    return down ? -order : order;
  }

  function sort(table, index, down) {
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      head.setAttribute("aria-sort", at === index ? (down ? "descending" : "ascending") : "none");
    });
    for (const body of table.tBodies) {
      const lines = groups.get(body);
      const sorted = (rows) => rows.sort((a, b) => compare(valueAt(a, index), valueAt(b, index), down));
      // in another order nobody is below the line of the audit
      body.replaceChildren(...(index === null ? lines : [lines[0], ...sorted(lines.filter(isRow))]));
    }
  }

  for (const table of tables) {
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => {
        const sorted = head.getAttribute("aria-sort");
        const first = head.classList.contains("n") && index > 0; // the best on top; places count from 1
        sort(table, index, sorted === "none" ? first : sorted === "ascending");
      });
      head.append(button);
      head.setAttribute("aria-sort", "none");
    });
  }

  // filters

  const unique = (values) => [...new Set(values)];
  const select = (label, every, values) => {
    const options = [make("option", { value: "" }, every), ...values.map(([value, text]) => make("option", { value }, text))];
    const control = make("select", {}, ...options);
    return { control, label: make("label", {}, label, control) };
  };
  const named = (values) => values.map((value) => [value, value]);
  const search = make("input", { type: "search", autocomplete: "off", spellcheck: false });
  const protocol = select("Protocol", "all", named(unique(tables.map((table) => table.dataset.protocol))));
  const dataset = select("Data set", "all", named(unique([...groups.keys()].map((body) => body.dataset.dataset)).sort()));
  const epsilons = unique([...root.querySelectorAll("th[data-epsilon]")].map((head) => Number(head.dataset.epsilon)));
  const epsilon = select("Worst case at", "every ε", epsilons.sort((a, b) => a - b).map((e) => [String(e), `ε = ${e}/255`]));
  const count = make("p", { className: "lb-count", role: "status" });
  const form = make("form", { className: "lb-controls", "aria-label": "Filter the leaderboard" },
    make("label", {}, "Find", search), protocol.label, dataset.label, epsilon.label,
    make("button", { type: "reset" }, "Reset"));
  root.prepend(form, count);

  function filter() {
    const words = search.value.toLocaleLowerCase("en").split(/\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const [body, lines] of groups) {
      const place = lines[0].textContent, table = body.closest("table");
      const here = (!protocol.control.value || table.dataset.protocol === protocol.control.value)
        && (!dataset.control.value || body.dataset.dataset === dataset.control.value);
      for (const line of lines.filter(isRow)) {
        const text = `${line.textContent} ${place} ${table.dataset.protocol}`.toLocaleLowerCase("en");
        line.hidden = !here || !words.every((word) => text.includes(word));
        all += 1;
        shown += !line.hidden;
      }
      body.hidden = lines.filter(isRow).every((line) => line.hidden);
      for (const line of lines.filter((each) => each.className === "lb-line")) {
        line.hidden = lines.slice(lines.indexOf(line) + 1).every((below) => below.hidden);
      }
    }
    for (const table of tables) {
      const empty = [...table.tBodies].every((body) => body.hidden);
      table.parentElement.hidden = empty;
      for (const cell of table.querySelectorAll("[data-epsilon]")) {
        cell.hidden = epsilon.control.value !== "" && cell.dataset.epsilon !== epsilon.control.value;
      }
    }
    for (const line of root.querySelectorAll(".lb-place th, .lb-line td")) {
      line.colSpan = [...line.closest("table").tHead.rows[0].cells].filter((head) => !head.hidden).length;
    }
    count.textContent = `${shown} of ${all} rows`;
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => {
    tables.forEach((table) => sort(table, null, false));
    filter();
  }));
  filter();
  root.dataset.ready = "true";
})();
