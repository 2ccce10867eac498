"use strict";
/* Values under the pointer, pictures enlarged, before and after in turn. The page is whole without it. */
(() => {
  const KEY = "ptycho-values\0";
  const known = new WeakMap();

  /* What the axes of a picture show lies in a text chunk of the PNG. */
  function told(img) {
    if (known.has(img)) return known.get(img);
    let found = [];
    try {
      const png = atob(img.src.slice(img.src.indexOf(",") + 1));
      const whole = (at) => ((png.charCodeAt(at) << 24) | (png.charCodeAt(at + 1) << 16) |
        (png.charCodeAt(at + 2) << 8) | png.charCodeAt(at + 3)) >>> 0;
      for (let at = 8; at + 8 < png.length; at += whole(at) + 12) {
        const kind = png.slice(at + 4, at + 8);
        if (kind === "IDAT") break;
        if (kind === "tEXt" && png.startsWith(KEY, at + 8)) {
          found = JSON.parse(png.slice(at + 8 + KEY.length, at + 8 + whole(at)));
        }
      }
    } catch (error) { found = []; }
    known.set(img, found);
    return found;
  }

  const short = (value) => String(Number(value.toPrecision(4)));

  function ofArray(item, u, v) {
    if (!item.bytes) item.bytes = atob(item.data);
    const [rows, columns] = item.shape;
    const at = 2 * (Math.min(rows - 1, Math.floor(v * rows)) * columns + Math.min(columns - 1, Math.floor(u * columns)));
    const level = item.bytes.charCodeAt(at) + 256 * item.bytes.charCodeAt(at + 1);
    if (level > item.levels) return "not shown";
    const value = item.low + (item.high - item.low) * level / item.levels;
    return `${item.name}: ${short(value)} ${item.unit}`.trim();
  }

  const between = (from, to, part, log) => log ? from * Math.pow(to / from, part) : from + (to - from) * part;

  function ofPoints(item, u, v, width, height) {
    const [left, right, bottom, top] = item.limits;
    let best = 24 * 24, text = "";
    item.points.forEach(([x, y], i) => {
      const across = ((x - left) / (right - left) - u) * width, down = ((y - top) / (bottom - top) - v) * height;
      const far = across * across + down * down;
      if (far < best) { best = far; text = item.texts[i]; }
    });
    return text;
  }

  function ofCurves(item, u) {
    const x = between(item.limits[0], item.limits[1], u, item.log[0]);
    const lines = [];
    let where = null;
    for (const [name, [xs, ys]] of Object.entries(item.curves)) {
      let best = -1;
      xs.forEach((at, i) => { if (ys[i] !== null && (best < 0 || Math.abs(at - x) < Math.abs(xs[best] - x))) best = i; });
      if (best < 0) continue;
      if (where === null) where = xs[best];
      lines.push(`${name}: ${short(ys[best])}`);
    }
    return where === null ? "" : [`${item.x} ${short(where)}`, ...lines].join("\n");
  }

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;

  function tell(event) {
    const img = event.target;
    if (!(img instanceof HTMLImageElement) || !img.src.startsWith("data:")) { tip.hidden = true; return; }
    const box = img.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    let text = "";
    for (const item of told(img)) {
      const [left, top, width, height] = item.frame;
      const a = (u - left) / width, b = (v - top) / height;
      if (a < 0 || a >= 1 || b < 0 || b >= 1) continue;
      text = item.kind === "array" ? ofArray(item, a, b) : item.kind === "curves" ? ofCurves(item, a)
        : ofPoints(item, a, b, box.width * width, box.height * height);
    }
    tip.hidden = text === "";
    if (tip.hidden) return;
    tip.textContent = text;
    (img.closest("dialog") || document.body).append(tip);
    const room = tip.getBoundingClientRect();
    const x = event.clientX + 14 + room.width > innerWidth ? event.clientX - 14 - room.width : event.clientX + 14;
    const y = event.clientY + 14 + room.height > innerHeight ? event.clientY - 14 - room.height : event.clientY + 14;
    tip.style.left = `${Math.max(0, x)}px`;
    tip.style.top = `${Math.max(0, y)}px`;
  }
  document.addEventListener("pointermove", tell);
  document.addEventListener("pointerdown", tell);
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);

  function button(text, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.title = label;
    made.addEventListener("click", act);
    return made;
  }

  function enlarge(img) {
    const dialog = document.createElement("dialog"), bar = document.createElement("div"), pane = document.createElement("div");
    const large = img.cloneNode();
    let width = Math.max(img.naturalWidth, Math.min(innerWidth, innerHeight));
    const fit = () => { large.style.width = `${width}px`; };
    const zoom = (by) => { width = Math.min(8 * img.naturalWidth, Math.max(200, width * by)); fit(); };
    large.removeAttribute("width");
    bar.className = "bar";
    pane.className = "pane";
    bar.append(button("−", "smaller", () => zoom(1 / 1.4)), button("+", "larger", () => zoom(1.4)),
      button("close", "close", () => dialog.close()));
    pane.append(large);
    pane.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }, { passive: false });
    dialog.append(bar, pane);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    fit();
    dialog.showModal();
  }

  for (const img of document.querySelectorAll("figure img")) {
    img.parentElement.append(button("⤢", `enlarge: ${img.alt}`, () => enlarge(img)));
    img.addEventListener("dblclick", () => enlarge(img));
  }

  for (const box of document.querySelectorAll(".switch")) {
    const choices = [...box.querySelectorAll(":scope > input")];
    let timer = 0;
    const flick = button("flicker", "show them in turn", () => {
      if (timer) { clearInterval(timer); timer = 0; } else {
        timer = setInterval(() => {
          const at = choices.findIndex((choice) => choice.checked);
          choices[(at + 1) % choices.length].checked = true;
        }, 700);
      }
      flick.setAttribute("aria-pressed", String(timer !== 0));
    });
    flick.className = "flick";
    box.insertBefore(flick, box.querySelector(".side"));
  }

  for (const pre of document.querySelectorAll("pre.command")) {
    const copy = button("copy", "copy the command", () => {
      navigator.clipboard.writeText(pre.textContent).then(() => { copy.textContent = "copied"; }, () => {
        getSelection().selectAllChildren(pre);
      });
    });
    pre.after(copy);
  }
})();
