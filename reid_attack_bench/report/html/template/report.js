"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { settings, victims, datasets, columns, cells: rows, board, clean, measures, ramp, examples, controls } = data;
  const $ = (id) => document.getElementById(id);
  const column = Object.fromEntries(columns.map((name, index) => [name, index]));
  const cells = rows.map((row, index) => ({ index, row, setting: settings[row[column.setting]] }));
  const get = (cell, name) => cell.row[column[name]];
  const cleanAt = new Map(clean.map((each) => [each.victim + "\n" + each.dataset, each]));
  const victimAt = new Map(victims.map((each, index) => [each.name, index]));

  // text

  const digits = Object.fromEntries(measures.map((each) => [each.id, each.digits]));
  const title = Object.fromEntries(measures.map((each) => [each.id, each.title]));
  const inGroup = (...groups) => measures.filter((each) => groups.includes(each.group)).map((each) => each.id);
  const shown = (value, name) => (value === null || value === undefined ? "–" : value.toFixed(digits[name] ?? 1));
  const span = (low, high) => (low === null || low === undefined ? "" : ` [${low.toFixed(1)}, ${high.toFixed(1)}]`);

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // a long name may break behind its punctuation
  const breakable = (name) => name.split(/(?<=[@_+])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));

  function fill(select, choices, chosen) {
    const wanted = String(chosen ?? select.value); // before its options go
    select.replaceChildren(...choices.map(([value, text]) => make("option", { value: String(value) }, text)));
    select.value = choices.some(([value]) => String(value) === wanted) ? wanted : String(choices[0]?.[0] ?? "");
  }

  const unique = (values) => [...new Set(values)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const any = (text) => [["", text]];
  const named = (values) => values.map((value) => [value, value]);

  // filters, shared by the leaderboard and the list of cells

  const access = { "white-box": "white-box", transfer: "transfer", query: "queries only" };
  const filters = { attack: $("f-attack"), budget: $("f-budget"), access: $("f-access"), source: $("f-source"),
    target: $("f-target"), dataset: $("f-dataset"), defended: $("f-defended") };
  const attacks = unique(settings.map((each) => each.attack));
  fill(filters.attack, [...any("all"), ...named(attacks)]);
  const budgets = new Map(settings.map((each) => [each.budget, each.budget_text]));
  fill(filters.budget, [...any("all"), ...budgets]);
  fill(filters.access, [...any("all"), ...unique(cells.map((cell) => get(cell, "access"))).map((a) => [a, access[a] ?? a])]);
  fill(filters.source, [...any("all"), ...named(unique(cells.map((cell) => victims[get(cell, "source")].name)))]);
  fill(filters.target, [...any("all"), ...named(unique(board.map((row) => row.victim)))]);
  fill(filters.dataset, [...any("all"), ...named(datasets.map((each) => each.name))]);
  fill(filters.defended, [...any("all"), ["yes", "defended"], ["no", "undefended"]]);
  fill($("f-worst"), data.epsilons.map((epsilon) => [epsilon, `ε = ${epsilon}/255`]), data.headline);

  const chosen = (name) => filters[name].value;
  const defended = (victim) => (victims[victimAt.get(victim)]?.defence ? "yes" : "no");

  function passes(cell) {
    const source = victims[get(cell, "source")].name, target = victims[get(cell, "target")].name;
    return (!chosen("attack") || cell.setting.attack === chosen("attack"))
      && (!chosen("budget") || cell.setting.budget === chosen("budget"))
      && (!chosen("access") || get(cell, "access") === chosen("access"))
      && (!chosen("source") || source === chosen("source"))
      && (!chosen("target") || target === chosen("target"))
      && (!chosen("dataset") || datasets[get(cell, "dataset")].name === chosen("dataset"))
      && (!chosen("defended") || defended(target) === chosen("defended"));
  }

  // sortable tables

  function table(element, heads, state, draw) {
    const line = make("tr");
    heads.forEach((head, index) => {
      const sorted = state.by === index ? (state.down ? "descending" : "ascending") : "none";
      const button = make("button", { type: "button" }, head.text);
      button.addEventListener("click", () => {
        state.down = state.by === index ? !state.down : Boolean(head.numeric);
        state.by = index;
        draw();
        element.querySelectorAll("thead button")[index].focus();
      });
      line.append(make("th", { scope: "col", "aria-sort": sorted, className: head.numeric ? "n" : "" }, button));
    });
    const body = make("tbody");
    element.replaceChildren(make("thead", {}, line), body);
    return body;
  }

  function compare(a, b, down) {
    const emptyA = a === null || a === undefined || a === "", emptyB = b === null || b === undefined || b === "";
    if (emptyA || emptyB) return emptyA - emptyB; // missing values come last in either direction
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
    return down ? -order : order;
  }

  function numberCell(value, low, high, bound = "") {
    if (value === null || value === undefined) return make("td", { className: "n" }, "–");
    return make("td", { className: "n" }, `${bound}${value.toFixed(1)}`, make("small", {}, span(low, high)));
  }

  function opener(cell, text) {
    const button = make("button", { type: "button", className: "link" }, text);
    button.addEventListener("click", () => open(cell));
    return button;
  }

  // leaderboard

  const boardState = { by: null, down: false };

  function strongest(victim, dataset, selected) {
    const list = selected.get(victim + "\n" + dataset) ?? [];
    return list.reduce((best, cell) => (best === null || get(cell, "mAP") < get(best, "mAP") ? cell : best), null);
  }

  function drawBoard() {
    const epsilon = $("f-worst").value;
    const selected = new Map();
    for (const cell of cells) {
      if (get(cell, "status") !== "ok" || !passes(cell)) continue;
      if (!chosen("budget") && String(cell.setting.epsilon) !== epsilon) continue; // the same epsilon as the worst-case columns
      const place = victims[get(cell, "target")].name + "\n" + datasets[get(cell, "dataset")].name;
      if (!selected.has(place)) selected.set(place, []);
      selected.get(place).push(cell);
    }
    const list = board.filter((row) => (!chosen("target") || row.victim === chosen("target"))
        && (!chosen("dataset") || row.dataset === chosen("dataset"))
        && (!chosen("defended") || defended(row.victim) === chosen("defended")))
      .map((row) => ({ ...row, at: row.worst[epsilon] ?? {}, cell: strongest(row.victim, row.dataset, selected) }));
    if (epsilon !== String(data.headline) && boardState.by === null) {
      list.sort((a, b) => Boolean(a.flags.length) - Boolean(b.flags.length) || compare(a.at.mAP?.[0], b.at.mAP?.[0], true));
    }
    const heads = [
      { text: "#", numeric: true, value: (row) => row.place },
      { text: "Victim", value: (row) => row.victim },
      { text: "Defence", value: (row) => row.defence },
      { text: "Data set", value: (row) => row.dataset },
      { text: "Clean Rank-1", numeric: true, value: (row) => row.clean.rank1?.[0] },
      { text: "Clean mAP", numeric: true, value: (row) => row.clean.mAP?.[0] },
      { text: `Worst Rank-1, ε = ${epsilon}`, numeric: true, value: (row) => row.at.rank1?.[0] },
      { text: `Worst mAP, ε = ${epsilon}`, numeric: true, value: (row) => row.at.mAP?.[0] },
      { text: "Selected Rank-1", numeric: true, value: (row) => row.cell && get(row.cell, "rank1") },
      { text: "Selected mAP", numeric: true, value: (row) => row.cell && get(row.cell, "mAP") },
      { text: "Strongest attack", value: (row) => (row.cell ? row.cell.setting.name : "") },
      { text: "Audit", value: (row) => [...row.flags, ...row.ambers].join(", ") },
    ];
    if (boardState.by !== null) {
      const { value } = heads[boardState.by];
      list.sort((a, b) => compare(value(a), value(b), boardState.down));
    }
    const body = table($("board"), heads, boardState, drawBoard);
    let below = false;
    for (const row of list) {
      if (boardState.by === null && row.flags.length && !below) {
        below = true;
        body.append(make("tr", { className: "line" }, make("td", { colSpan: heads.length }, "Unverified: see the audit")));
      }
      const bound = row.at.missing ? "≤ " : "";
      const by = row.cell === null ? "–" : `${row.cell.setting.name}, ${victims[get(row.cell, "source")].name === row.victim
        ? "white-box" : "from " + victims[get(row.cell, "source")].name}`;
      body.append(make("tr", {},
        make("td", { className: "n" }, row.place === null ? "" : String(row.place)),
        make("th", { scope: "row" }, ...breakable(row.victim)), make("td", {}, row.defence),
        make("td", {}, row.shown, make("small", {}, ` ${row.queries ?? "?"} queries`)),
        numberCell(...(row.clean.rank1 ?? [null])), numberCell(...(row.clean.mAP ?? [null])),
        row.at.rank1 ? numberCell(...row.at.rank1, bound) : numberCell(null), row.at.mAP ? numberCell(...row.at.mAP, bound) : numberCell(null),
        row.cell ? numberCell(get(row.cell, "rank1"), get(row.cell, "rank1_low"), get(row.cell, "rank1_high")) : numberCell(null),
        row.cell ? numberCell(get(row.cell, "mAP"), get(row.cell, "mAP_low"), get(row.cell, "mAP_high")) : numberCell(null),
        make("td", {}, row.cell ? opener(row.cell, by) : by),
        make("td", {},
          row.flags.length ? make("span", { className: "flag" }, "⚑ " + row.flags.join(", ")) : "",
          row.flags.length && row.ambers.length ? "; " : "",
          row.ambers.length ? make("span", { className: "amber" }, "amber: " + row.ambers.join(", ")) : "")));
    }
    $("board-count").textContent = `${list.length} of ${board.length} victims`;
  }

  // table of cells

  const aims = settings.some((each) => each.impersonate) ? ["target_rank1", "target_mAP", "asr1"] : [];
  const listState = { by: null, down: false }, page = { number: 0, size: 50 };

  function drawList() {
    const text = (name, words) => ({ text: words, value: (cell) => get(cell, name), numeric: true, name });
    const heads = [
      { text: "Attack", value: (cell) => cell.setting.attack },
      { text: "ε", numeric: true, value: (cell) => cell.setting.epsilon },
      { text: "Pixels", numeric: true, value: (cell) => cell.setting.pixels || null },
      { text: "Source", value: (cell) => victims[get(cell, "source")].name },
      { text: "Target", value: (cell) => victims[get(cell, "target")].name },
      { text: "Data set", value: (cell) => datasets[get(cell, "dataset")].name },
      { text: "Access", value: (cell) => get(cell, "access") },
      text("rank1", "Rank-1"), text("mAP", "mAP"), text("drop_mAP", "Drop of mAP"), text("ssim", "SSIM"), text("linf", "L∞"),
      ...aims.map((name) => text(name, title[name])),
    ];
    const list = cells.filter(passes);
    if (listState.by !== null) {
      const { value } = heads[listState.by];
      list.sort((a, b) => compare(value(a), value(b), listState.down));
    }
    const pages = Math.max(1, Math.ceil(list.length / page.size));
    page.number = Math.min(page.number, pages - 1);
    const body = table($("list"), heads, listState, drawList);
    for (const cell of list.slice(page.number * page.size, (page.number + 1) * page.size)) {
      const line = make("tr", {}, make("th", { scope: "row" }, opener(cell, cell.setting.variant)));
      for (const head of heads.slice(1, 7)) {
        line.append(make("td", { className: head.numeric ? "n" : "" }, String(head.value(cell) ?? "all")));
      }
      if (get(cell, "status") === "ok") {
        for (const head of heads.slice(7)) line.append(make("td", { className: "n" }, shown(get(cell, head.name), head.name)));
      } else line.append(make("td", { colSpan: heads.length - 7 }, get(cell, "status")));
      body.append(line);
    }
    $("cells-count").textContent = `${list.length} of ${cells.length} cells`;
    $("page").textContent = `Page ${page.number + 1} of ${pages}`;
    $("previous").disabled = page.number === 0;
    $("next").disabled = page.number === pages - 1;
  }

  $("previous").addEventListener("click", () => { page.number -= 1; drawList(); });
  $("next").addEventListener("click", () => { page.number += 1; drawList(); });
  const filtered = () => { page.number = 0; drawBoard(); drawList(); };
  $("filters").addEventListener("change", filtered);
  $("filters").addEventListener("reset", () => setTimeout(() => { $("f-worst").value = String(data.headline); filtered(); }));

  // transfer matrix

  fill($("m-dataset"), named(datasets.map((each) => each.name)));
  const shownMeasures = measures.filter((each) => each.id.startsWith("clean_") || cells.some((cell) => get(cell, each.id) !== null));
  fill($("m-metric"), shownMeasures.map((each) => [each.id, each.title]), "mAP");

  function settingsOf(dataset) {
    const used = new Set(cells.filter((cell) => datasets[get(cell, "dataset")].name === dataset).map((cell) => get(cell, "setting")));
    return [...used].sort((a, b) => a - b).map((index) => [index, settings[index].name]);
  }

  // initial setting of the matrix: the attack with the lowest mean mAP on its own source model
  function strongestSetting(dataset) {
    const sums = new Map();
    for (const cell of cells) {
      if (datasets[get(cell, "dataset")].name !== dataset || cell.setting.epsilon !== data.headline) continue;
      if (get(cell, "status") !== "ok" || get(cell, "access") === "transfer") continue;
      const [sum, count] = sums.get(get(cell, "setting")) ?? [0, 0];
      sums.set(get(cell, "setting"), [sum + get(cell, "mAP"), count + 1]);
    }
    const means = [...sums].map(([setting, [sum, count]]) => [sum / count, setting]).sort((a, b) => a[0] - b[0]);
    return means[0]?.[1];
  }

  function light(colour) {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18;
  }

  // the best control of each target at the budget of a setting
  function controlsAt(dataset, setting) {
    if (!setting || setting.control) return new Map();
    return new Map(controls.filter((each) => datasets[each.dataset].name === dataset && each.epsilon === setting.epsilon
      && each.pixels === setting.pixels && each.perturbs === setting.perturbs).map((each) => [each.target, each]));
  }

  const notBelow = (cell) => get(cell, "over_control_mAP") !== null && get(cell, "over_control_mAP_high") >= 0;

  function controlText(best, marked, shownCells) {
    const transferred = shownCells.filter((cell) => get(cell, "access") === "transfer" && get(cell, "status") === "ok" && !cell.setting.control && !cell.setting.impersonate);
    if (!transferred.length) return "";
    if (!best.size) return "No control was run at this budget: whether the attack transfers is not known.";
    const compared = transferred.filter((cell) => get(cell, "over_control_mAP") !== null).length;
    const names = unique([...best.values()].map((each) => each.name)).join(" or ");
    return `Best control: ${names}, picked on the same queries. ${compared - marked} of ${compared} transferred cells leave less mAP, by a paired 95 % interval over identities; ° marks the others.`;
  }

  function drawHeat() {
    const dataset = $("m-dataset").value, metric = $("m-metric").value;
    fill($("m-setting"), settingsOf(dataset), $("m-setting").value || strongestSetting(dataset));
    const setting = Number($("m-setting").value);
    const here = cells.filter((cell) => datasets[get(cell, "dataset")].name === dataset);
    const found = new Map(here.filter((cell) => get(cell, "setting") === setting)
      .map((cell) => [get(cell, "source") + "\n" + get(cell, "target"), cell]));
    const names = (side) => unique(here.map((cell) => victims[get(cell, side)].name)).map((name) => victimAt.get(name));
    const sources = names("source"), targets = names("target");
    const values = [...found.values()].filter((cell) => get(cell, "status") === "ok").map((cell) => get(cell, metric)).filter((v) => v !== null);
    const baseline = Object.fromEntries(targets.map((target) => [target, cleanAt.get(victims[target].name + "\n" + dataset)]));
    const percent = measures.find((each) => each.id === metric).percent;
    const low = percent ? Math.min(0, ...values) : Math.min(...values), high = percent ? 100 : Math.max(...values);
    const colour = (value) => ramp[Math.round(Math.min(1, Math.max(0, high > low ? (value - low) / (high - low) : 0.5)) * (ramp.length - 1))];
    const paint = (cell, value) => {
      const shade = colour(value);
      cell.style.background = shade;
      cell.style.color = light(shade) ? "#000" : "#fff";
    };
    const head = make("tr", { role: "row" }, make("th", { scope: "col", role: "columnheader" }, "Source \\ target"),
      ...targets.map((target) => make("th", { scope: "col", role: "columnheader", title: victims[target].name }, make("span", {}, victims[target].name))));
    const body = make("tbody", { role: "rowgroup" });
    const line = (name) => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", title: name }, name));
    if (targets.some((target) => baseline[target]?.[metric] !== undefined)) {
      const first = line("clean (no attack)");
      for (const target of targets) {
        const value = baseline[target]?.[metric];
        const cell = make("td", { role: "gridcell", className: "blank", tabIndex: -1 }, value === undefined || value === null ? "–" : shown(value, metric));
        if (value !== undefined && value !== null) paint(cell, value);
        first.append(cell);
      }
      body.append(first);
    }
    const best = controlsAt(dataset, settings[setting]);
    if (targets.some((target) => best.has(target))) {
      const row = line("best control");
      for (const target of targets) {
        const control = best.get(target), value = control?.values[metric] ?? null;
        const box = make("td", { role: "gridcell", className: "blank", tabIndex: -1, title: control?.name ?? "no control was run" }, shown(value, metric));
        if (value !== null) paint(box, value);
        row.append(box);
      }
      body.append(row);
    }
    let marked = 0;
    for (const source of sources) {
      const row = line(victims[source].name);
      for (const target of targets) {
        const cell = found.get(source + "\n" + target);
        const value = cell && get(cell, "status") === "ok" ? get(cell, metric) : null;
        const box = make("td", { role: "gridcell", tabIndex: -1 }, cell === undefined ? "" : shown(value, metric));
        box.classList.toggle("own", cell !== undefined && get(cell, "access") !== "transfer");
        if (cell === undefined) {
          box.classList.add("blank");
          box.setAttribute("aria-label", "not run");
        } else {
          box.dataset.cell = String(cell.index);
          if (value === null) {
            box.classList.add("gap");
            box.title = get(cell, "status") === "ok" ? "not measured" : get(cell, "status");
            box.setAttribute("aria-label", "missing: " + box.title);
          } else {
            paint(box, value);
            if (notBelow(cell)) {
              marked += 1;
              box.classList.add("weak");
              box.append("°");
              box.title = `no better than ${best.get(target).name}`;
            }
          }
        }
        row.append(box);
      }
      body.append(row);
    }
    $("heat").replaceChildren(make("thead", { role: "rowgroup" }, head), body);
    $("matrix-control").textContent = controlText(best, marked, [...found.values()]);
    const start = body.querySelector("td:not(.blank)") ?? body.querySelector("td");
    if (start) start.tabIndex = 0;
    const bar = make("span", { className: "ramp" });
    bar.style.background = `linear-gradient(to right, ${ramp.filter((_, index) => index % 8 === 0).join(", ")})`;
    const range = values.length || percent ? [shown(low, metric), shown(high, metric)] : ["", ""];
    const part = (text) => make("span", {}, text);
    $("legend").replaceChildren(part(title[metric]), part(range[0]), bar, part(range[1]), make("span", { className: "gapkey" }), part("missing; blank: not run"));
    $("legend").setAttribute("aria-label", `${title[metric]}, colours from ${range[0]} to ${range[1]}; hatched cells are missing`);
  }

  $("heat").addEventListener("keydown", (event) => {
    const here = event.target.closest("td");
    if (!here) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      here.click();
      return;
    }
    const lines = [...$("heat").tBodies[0].rows], y = lines.indexOf(here.parentElement), x = here.cellIndex;
    const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0],
      Home: [1 - x, 0], End: [here.parentElement.cells.length - 1 - x, 0] };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [right, down] = moves[event.key];
    const next = lines[y + down]?.cells[x + right];
    if (!next || next.tagName !== "TD") return;
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  $("heat").addEventListener("click", (event) => {
    const index = event.target.closest("td")?.dataset.cell;
    if (index !== undefined) open(cells[Number(index)]);
  });
  for (const id of ["m-dataset", "m-setting", "m-metric"]) $(id).addEventListener("change", drawHeat);

  // images

  function shot(image, words, kind = "") {
    return make("figure", { className: "shot " + kind }, make("img", { src: image, alt: words, loading: "lazy" }), make("figcaption", {}, words));
  }

  function triplet(craft, place) {
    const query = craft.queries[place];
    return [shot(examples.clean[craft.dataset][query], "clean"), shot(craft.adversarial[place], "adversarial"), shot(craft.noise[place], "noise, amplified")];
  }

  function five(dataset, list, words) {
    const strip = make("div", { className: "five" });
    for (const [image, right] of list) {
      strip.append(image === null ? make("span", {}, "–")
        : shot(examples.gallery[dataset][image], right ? "✓ correct" : "✗ wrong", right ? "correct" : "wrong"));
    }
    return make("div", { className: "found" }, make("p", {}, words), strip);
  }

  function retrieved(cell, place) {
    const found = examples.found[cell.index];
    const dataset = datasets[get(cell, "dataset")].name;
    if (!found || !found[place]) return [];
    return [five(dataset, found[place].before, "retrieved for the clean query"), five(dataset, found[place].after, "retrieved for the adversarial query")];
  }

  const craftOf = (cell) => examples.crafts[examples.craft_of[cell.index]];

  // details of one cell

  function open(cell) {
    const source = victims[get(cell, "source")], target = victims[get(cell, "target")], dataset = datasets[get(cell, "dataset")];
    const where = source === target ? `${source.name}, white-box` : `${source.name} → ${target.name}`;
    $("details-title").textContent = `${cell.setting.name}: ${where}`;
    const body = $("details-body");
    body.replaceChildren();
    const facts = [
      ["Data set", `${dataset.name}${dataset.marks ? ` (${dataset.marks})` : ""}, ${dataset.queries ?? "?"} queries`],
      ["Threat model", `${cell.setting.budget_text}; ${cell.setting.adaptive ? "adaptive" : "does not know the defence"}`],
      ["Access of the attack", cell.setting.needs || "no access to the source"],
      ["Defence of the target", target.defence || "none"],
    ];
    if (get(cell, "over_control_mAP") !== null) {
      const control = controlsAt(dataset.name, cell.setting).get(get(cell, "target"));
      const change = `${get(cell, "over_control_mAP").toFixed(1)}${span(get(cell, "over_control_mAP_low"), get(cell, "over_control_mAP_high"))}`;
      facts.push(["Best control", `${control.name}: mAP ${control.values.mAP.toFixed(1)}; difference ${change}: ${notBelow(cell) ? "no better than it" : "transfers"}`]);
    }
    if (get(cell, "status") !== "ok") {
      facts.push(["Missing", get(cell, "status")]);
    } else {
      const seeds = get(cell, "seeds");
      facts.push(["Seeds of the attack", seeds.length > 1 ? seeds.map(([seed, rank1, mean]) => `${seed}: Rank-1 ${rank1.toFixed(1)}, mAP ${mean.toFixed(1)}`).join("; ") : String(seeds[0][0])]);
    }
    body.append(make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    if (get(cell, "status") === "ok") {
      const lines = make("tbody");
      const both = inGroup("ranking", "comparison", "verification").filter((name) => get(cell, name) !== null);
      for (const name of both) {
        lines.append(make("tr", {}, make("th", { scope: "row" }, title[name]),
          make("td", { className: "n" }, shown(get(cell, "clean_" + name), name)),
          numberCell(get(cell, name), get(cell, name + "_low") ?? null, get(cell, name + "_high") ?? null),
          make("td", { className: "n" }, shown(get(cell, "drop_" + name), name))));
      }
      body.append(make("table", { className: "data" }, make("thead", {}, make("tr", {},
        ...["In %", "Clean", "Attacked", "Drop"].map((text, index) => make("th", { scope: "col", className: index ? "n" : "" }, text)))), lines));
      const lost = inGroup("evasion").filter((name) => get(cell, name) !== null);
      if (lost.length) body.append(make("dl", {}, ...lost.flatMap((name) => [make("dt", {}, `${title[name]} (%)`),
        make("dd", {}, shown(get(cell, name), name) + span(get(cell, name + "_low") ?? null, get(cell, name + "_high")))])));
      if (cell.setting.impersonate) {
        const aimed = make("tbody");
        for (const name of inGroup("targeted")) {
          aimed.append(make("tr", {}, make("th", { scope: "row" }, title[name]),
            make("td", { className: "n" }, shown(column["clean_" + name] === undefined ? null : get(cell, "clean_" + name), name)),
            numberCell(get(cell, name), get(cell, name + "_low") ?? null, get(cell, name + "_high") ?? null)));
        }
        body.append(make("h3", {}, `Impersonation, ${cell.setting.impersonate} identity`),
          make("table", { className: "data" }, make("thead", {}, make("tr", {}, ...["In %", "Clean", "Attacked"]
            .map((text, index) => make("th", { scope: "col", className: index ? "n" : "" }, text)))), aimed));
      }
      const visible = inGroup("visibility", "detection").filter((name) => get(cell, name) !== null);
      body.append(make("h3", {}, "Visibility, mean over the queries"),
        make("dl", {}, ...visible.flatMap((name) => [make("dt", {}, title[name]), make("dd", {}, shown(get(cell, name), name))])));
      const costs = inGroup("cost").filter((name) => get(cell, name) !== null);
      if (costs.length) body.append(make("h3", {}, "Cost, mean over the images"),
        make("dl", {}, ...costs.flatMap((name) => [make("dt", {}, title[name]), make("dd", {}, shown(get(cell, name), name))])));
    }
    const craft = craftOf(cell);
    if (craft) {
      body.append(make("h3", {}, "Example queries"));
      craft.queries.forEach((query, place) => body.append(make("div", { className: "row" }, ...triplet(craft, place), ...retrieved(cell, place))));
    }
    $("details").showModal();
    $("details").scrollTop = 0;
  }

  // gallery

  function drawGallery() {
    const [source, dataset] = JSON.parse($("g-source").value);
    const crafts = examples.crafts.map((craft, index) => ({ craft, index })).filter(({ craft }) => craft.source === source && craft.dataset === dataset);
    const queries = unique(crafts.flatMap(({ craft }) => craft.queries));
    fill($("g-query"), queries.map((query) => [query, `number ${query}`]));
    const query = Number($("g-query").value);
    const mine = new Map();
    for (const cell of cells) {
      const craft = examples.craft_of[cell.index];
      if (craft !== undefined && crafts.some(({ index }) => index === craft)) mine.set(craft + "\n" + victims[get(cell, "target")].name, cell);
    }
    const targets = unique([...mine.keys()].map((key) => key.split("\n")[1]));
    fill($("g-target"), named(targets), targets.includes($("g-target").value) ? $("g-target").value : source);
    const rowsOf = [];
    for (const { craft, index } of crafts) {
      const place = craft.queries.indexOf(query), cell = mine.get(index + "\n" + $("g-target").value);
      if (place < 0) continue;
      const found = cell ? retrieved(cell, place) : [];
      rowsOf.push(make("div", { className: "row" }, make("h3", {}, settings[craft.setting].name), ...triplet(craft, place),
        ...(found.length ? found : [make("p", { className: "count" }, "The retrieved images are left out to limit the file size.")])));
    }
    $("gallery-rows").replaceChildren(...rowsOf);
  }

  if ($("gallery")) {
    const pairs = unique(examples.crafts.map((craft) => JSON.stringify([craft.source, craft.dataset])));
    fill($("g-source"), pairs.map((pair) => [pair, JSON.parse(pair).join(" on ")]));
    for (const id of ["g-source", "g-query", "g-target"]) $(id).addEventListener("change", drawGallery);
    drawGallery();
  }

  // curves

  const places = board.map((row) => [row.victim, row.dataset]);
  fill($("c-victim"), places.map((place) => [JSON.stringify(place), `${place[0]} on ${place[1]}`]));
  fill($("c-metric"), inGroup("ranking").map((name) => [name, title[name]]), "mAP");
  const axes = { epsilon: "ε (1/255 of the colour range)", pixels: "pixels that may change", steps: "steps of the attack" };

  function pointsOf(victim, dataset) {
    return cells.filter((cell) => victims[get(cell, "target")].name === victim && datasets[get(cell, "dataset")].name === dataset
      && get(cell, "status") === "ok" && cell.setting.perturbs === "query");
  }

  function curvePoints(list, axis, metric, kind) {
    const groups = new Map();
    for (const cell of list) {
      const own = get(cell, "access") !== "transfer";
      if (kind === "own" ? !own : own) continue;
      const setting = cell.setting, x = axis === "pixels" ? setting.pixels || data.all_pixels : setting[axis];
      if (!x) continue;
      const rest = { epsilon: setting.pixels ? `, ${setting.pixels} pixels` : "", pixels: `, ε = ${setting.epsilon}`, steps: `, ε = ${setting.epsilon}` }[axis];
      const series = (setting.control ? "best control" : axis === "steps" && setting.family ? `${setting.family}${setting.adaptive ? ", adaptive" : ""}` : setting.attack) + rest;
      const key = series + "\n" + x, best = groups.get(key);
      if (!best || get(cell, "mAP") < get(best.cell, "mAP")) groups.set(key, { cell, series, x });
    }
    const points = [...groups.values()].map(({ cell, series, x }) => ({ series, x, y: get(cell, metric),
      low: get(cell, metric + "_low") ?? get(cell, metric), high: get(cell, metric + "_high") ?? get(cell, metric),
      source: victims[get(cell, "source")].name, attack: cell.setting.name }));
    return points.sort((a, b) => (a.series < b.series ? -1 : a.series > b.series ? 1 : a.x - b.x));
  }

  async function drawCurves() {
    const [victim, dataset] = JSON.parse($("c-victim").value);
    const list = pointsOf(victim, dataset);
    const varied = Object.keys(axes).filter((axis) => new Set(list.map((cell) => (axis === "pixels" ? cell.setting.pixels : cell.setting[axis]))).size > 1);
    fill($("c-axis"), (varied.length ? varied : ["epsilon"]).map((axis) => [axis, axes[axis]]));
    const kinds = [["own", "on itself"], ["transfer", "transferred, strongest source"]].filter(([kind]) => list.some((cell) => (get(cell, "access") !== "transfer") === (kind === "own")));
    fill($("c-access"), kinds.length ? kinds : [["own", "on itself"]]);
    const axis = $("c-axis").value, metric = $("c-metric").value, kind = $("c-access").value;
    const points = curvePoints(list, axis, metric, kind);
    const base = cleanAt.get(victim + "\n" + dataset)?.[metric];
    const marks = datasets.find((each) => each.name === dataset).marks;
    const about = `${victim} on ${dataset}${marks ? `, ${marks} data` : ""}`;
    const words = kind === "own" ? "attacks crafted on it" : "transferred attacks, the strongest source of each";
    $("curve-text").textContent = `${title[metric]} (%) of ${about}, ${words}; bars: 95 % intervals over identities${base ? `; clean ${base.toFixed(1)}, dashed` : ""}.`;
    $("scatter-text").textContent = `Strength against visibility: ${title[metric]} (%) under attack against SSIM, ${words}; attacks further down are stronger, attacks further right less visible.`;
    const seen = list.filter((cell) => (get(cell, "access") !== "transfer") === (kind === "own") && get(cell, "ssim") !== null)
      .map((cell) => ({ series: cell.setting.control ? "controls" : cell.setting.attack, attack: cell.setting.name, x: get(cell, "ssim"), y: get(cell, metric), source: victims[get(cell, "source")].name }));
    await Promise.all([
      chart("curve", data.charts.curve, { points, clean: base === undefined || base === null ? [] : [{ y: base }] },
        { x: axes[axis], y: `${title[metric]} (%)` }, $("curve-text").textContent),
      chart("scatter", data.charts.scatter, { points: seen }, { x: "SSIM (1: identical)", y: `${title[metric]} (%)` }, $("scatter-text").textContent),
    ]);
    const heads = [["series", "Attack"], ["x", axes[axis]], ["y", title[metric]], ["source", "Source"]];
    $("points").replaceChildren(
      make("thead", {}, make("tr", {}, ...heads.map(([, text]) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...points.map((point) => make("tr", {}, ...heads.map(([name]) =>
        make("td", {}, typeof point[name] === "number" && name === "y" ? point[name].toFixed(1) : String(point[name])))))));
  }

  const views = {};
  async function chart(id, spec, datasetsOf, titles, label) {
    if (!window.vegaEmbed) return;
    const copy = structuredClone(spec);
    copy.datasets = datasetsOf;
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    const narrow = $(id).clientWidth < 540;
    const rename = (node) => {
      if (node === null || typeof node !== "object") return;
      if (node.title === "{x}") node.title = titles.x;
      if (node.title === "{y}") node.title = titles.y;
      if (node.orient === "bottom" && node.columns) node.columns = narrow ? 1 : 2;
      Object.values(node).forEach(rename);
    };
    rename(copy);
    copy.description = label;
    const config = { background: "transparent", view: { stroke: line }, axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: ink, titleColor: ink }, range: { category: data.colours } };
    views[id]?.finalize();
    views[id] = await vegaEmbed($(id), copy, { actions: false, renderer: "svg", config, tooltip: { theme: isDark() ? "dark" : "light" } });
  }
  for (const id of ["c-victim", "c-axis", "c-metric", "c-access"]) $(id).addEventListener("change", drawCurves);

  // colours of the page

  const system = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  let choice = "auto";
  const isDark = () => (choice === "auto" ? system.matches : choice === "dark");
  function recolour(draw) {
    root.dataset.theme = isDark() ? "dark" : "light";
    $("theme").setAttribute("aria-label", `Colours: ${choice === "auto" ? "as the system" : choice}; switch`);
    if (draw) drawCurves();
  }
  $("theme").addEventListener("click", () => {
    choice = { auto: system.matches ? "light" : "dark", light: "dark", dark: "light" }[choice];
    recolour(true);
  });
  system.addEventListener("change", () => recolour(true));

  recolour(false);
  drawBoard();
  drawList();
  drawHeat();
  drawCurves().then(() => { root.dataset.ready = "true"; });
})();
