"use strict";
window.onerror = (text) => {
  const box = document.getElementById("fault");
  box.hidden = false;
  box.textContent = "The page failed: " + text;
};
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const at = Object.fromEntries(data.columns.map((name, i) => [name, i]));
  const value = (row, name) => (name in at ? row[at[name]] : null);
  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  // A cell of a table with commas or tabs; "#" begins a comment in the examples file.
  const quoted = (cell) => {
    const text = cell === null ? "" : String(cell);
    return /[",#\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const sorted = (name) =>
    [...new Set(data.rows.map((row) => value(row, name)))].sort((a, b) => String(a).localeCompare(String(b)));

  // Viewer
  const names = Object.keys(data.pictures);
  const chooser = byId("tomogram"), slider = byId("slice"), opacity = byId("opacity");
  const buttons = [...document.querySelectorAll("[data-overlay]")];
  let overlay = "class", marked = null;
  names.forEach((name) => { make("option", name, chooser).value = name; });

  function place(frame, cut, kind) {
    const [density, over] = frame.querySelectorAll("img");
    density.src = "data:image/jpeg;base64," + cut.density;
    density.width = cut.width; density.height = cut.height;
    // As wide as the page, what is narrow and tall would fill several screens.
    frame.style.maxWidth = Math.max((cut.width * 720) / cut.height, 90) + "px";
    const image = kind && cut[kind];
    over.hidden = !image;
    if (image) over.src = "data:image/png;base64," + image;
    over.style.opacity = opacity.value / 100;
  }
  function legend(one) {
    const box = byId("legend");
    box.replaceChildren();
    if (overlay === "class") one.classes.forEach((name) => {
      const item = make("span", undefined, box);
      make("b", undefined, item).style.background = data.colours[name];
      item.append(name);
    });
    if (overlay === "probability") {
      const item = make("span", "0 %", box);
      make("span", undefined, item).className = "ramp";
      item.append("100 %");
    }
  }
  function show() {
    const one = data.pictures[chooser.value];
    if (!one) return;
    const cut = one.slices[slider.value], nm = one.voxel_size / 10;
    const kind = overlay && cut[overlay] ? overlay : "";
    buttons.forEach((button) => {
      const wanted = button.dataset.overlay;
      button.disabled = Boolean(wanted) && !cut[wanted];
      button.setAttribute("aria-pressed", String(wanted === kind));
    });
    place(byId("xy"), cut, kind);
    place(byId("xz"), one.xz, kind);
    byId("z").textContent = "z = " + cut.z;
    slider.setAttribute("aria-valuetext", "z = " + cut.z);
    const [nz, ny, nx] = one.shape;
    byId("caption").textContent = `XY slice z = ${cut.z} of ${nz}; ${(nx * nm).toFixed(0)} × ${(ny * nm).toFixed(0)} nm, y downward`;
    byId("xzcaption").textContent = `XZ cut at y = ${one.xz.y}; ${(nz * nm).toFixed(0)} nm thick, z downward`;
    const ring = byId("xy").querySelector("i");
    ring.hidden = !(marked && marked.tomogram === chooser.value);
    if (!ring.hidden) {
      ring.style.left = (100 * (marked.x + 0.5)) / nx + "%";
      ring.style.top = (100 * (marked.y + 0.5)) / ny + "%";
    }
    legend(one);
  }
  function open(name, z) {
    chooser.value = name;
    const one = data.pictures[name];
    slider.max = one.slices.length - 1;
    const wanted = z === undefined ? (one.slices[0].z + one.slices.at(-1).z) / 2 : z;
    let best = 0;
    one.slices.forEach((cut, i) => {
      if (Math.abs(cut.z - wanted) < Math.abs(one.slices[best].z - wanted)) best = i;
    });
    slider.value = best;
    show();
  }
  function goTo(row) {
    const name = value(row, "tomogram");
    if (!(name in data.pictures)) return;
    marked = value(row, "x_voxel") === null ? null : { tomogram: name, x: value(row, "x_voxel"), y: value(row, "y_voxel") };
    open(name, value(row, "z_voxel") ?? undefined);
    byId("viewer").scrollIntoView({ block: "start" });
  }
  if (names.length) {
    chooser.addEventListener("change", () => { marked = null; open(chooser.value); });
    slider.addEventListener("input", () => { marked = null; show(); });
    opacity.addEventListener("input", show);
    buttons.forEach((button) => button.addEventListener("click", () => { overlay = button.dataset.overlay; show(); }));
    open(names[0]);
  } else byId("viewer").hidden = true;

  // Table; original columns and units go to the CSV, nm to the page.
  const shown = [
    ["tomogram", "tomogram"], ["group", "group"], ["instance", "instance", 1, 0], ["class", "class"],
    ["confidence", "confidence", 1, 2], ["equivalent_diameter_angstrom", "diameter, nm", 0.1, 1],
    ["volume_angstrom3", "volume, nm³", 0.001, 0], ["sphericity", "sphericity", 1, 2], ["solidity", "solidity", 1, 2],
    ["nearest_distance_angstrom", "nearest, nm", 0.1, 1], ["touches_border", "at border"],
    ["x_voxel", "x", 1, 1], ["y_voxel", "y", 1, 1], ["z_voxel", "z", 1, 1],
  ].filter(([name]) => name in at);
  const size = 25;
  let page = 0, order = null, falling = false, found = data.rows;

  function filter() {
    const words = byId("text").value.toLowerCase();
    const tomogram = byId("by-tomogram").value, kind = byId("by-class").value;
    const least = Number(byId("by-confidence").value) || 0;
    found = data.rows.filter((row) =>
      (!tomogram || value(row, "tomogram") === tomogram) &&
      (!kind || value(row, "class") === kind) &&
      (least <= 0 || (value(row, "confidence") ?? -1) >= least) &&
      (!words || row.some((cell) => cell !== null && String(cell).toLowerCase().includes(words))));
    if (order) {
      const i = at[order], sign = falling ? -1 : 1;
      found.sort((a, b) => {
        if (a[i] === null || b[i] === null) return (a[i] === null) - (b[i] === null);
        return sign * (typeof a[i] === "string" ? a[i].localeCompare(b[i]) : a[i] - b[i]);
      });
    }
    page = 0;
    fill();
  }
  function fill() {
    const body = byId("rows");
    body.replaceChildren();
    found.slice(page * size, (page + 1) * size).forEach((row) => {
      const line = make("tr", undefined, body);
      line.addEventListener("click", () => goTo(row));
      shown.forEach(([name, , scale, digits]) => {
        const cell = value(row, name);
        if (scale) {
          const text = cell === null ? "–" : (cell * scale).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
          make("td", text, line).className = "n";
        } else if (name === "class") {
          const td = make("td", undefined, line);
          const dot = make("span", undefined, td);
          dot.className = "dot";
          dot.style.background = data.colours[cell];
          td.append(cell);
        } else make("td", cell === true ? "yes" : cell === false ? "no" : cell ?? "–", line);
      });
    });
    const pages = Math.max(1, Math.ceil(found.length / size));
    byId("page").textContent = found.length ? `${found.length.toLocaleString("en")} instances, page ${page + 1} of ${pages}` : "No instances";
    byId("previous").disabled = page === 0;
    byId("next").disabled = page >= pages - 1;
  }
  shown.forEach(([name, title, scale]) => {
    const head = make("th", undefined, byId("head"));
    head.scope = "col";
    if (scale) head.className = "n";
    make("button", title, head).addEventListener("click", () => {
      falling = order === name ? !falling : false;
      order = name;
      [...byId("head").children].forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      filter();
    });
  });
  [["by-tomogram", "tomogram"], ["by-class", "class"]].forEach(([id, name]) =>
    sorted(name).forEach((text) => { make("option", text, byId(id)).value = text; }));
  ["text", "by-tomogram", "by-class", "by-confidence"].forEach((id) => byId(id).addEventListener("input", filter));
  byId("previous").addEventListener("click", () => { page -= 1; fill(); });
  byId("next").addEventListener("click", () => { page += 1; fill(); });
  byId("csv").addEventListener("click", () => {
    const text = [data.columns, ...found].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "instances.csv";
    link.click();
  });

  // Naming
  const cards = [...document.querySelectorAll(".review li")];
  if (cards.length) {
    Object.keys(data.colours).sort().forEach((name) => { if (name !== "unknown") make("option", undefined, byId("classes")).value = name; });
    const typed = (card) => card.querySelector("input").value.trim().replace(/\s+/g, " ");
    const write = () => {
      byId("named").value = cards
        .filter(typed)
        .map((card) => JSON.parse(card.dataset.cells).map((cell) => quoted(cell ?? typed(card))).join(byId("named").dataset.separator))
        .join("\n");
    };
    cards.forEach((card) => {
      card.querySelector("input").addEventListener("input", write);
      const number = Number(card.querySelector(".look").dataset.instance);
      const row = data.rows.find((one) => value(one, "tomogram") === card.dataset.tomogram && value(one, "instance") === number);
      if (row) card.querySelector(".look").addEventListener("click", () => goTo(row));
    });
    byId("copy").addEventListener("click", () => { byId("named").select(); document.execCommand("copy"); });
  }
  filter();
  document.documentElement.dataset.ready = "yes";
})();
