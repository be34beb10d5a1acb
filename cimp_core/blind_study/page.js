
// One rater's way through the pairs of one code. Answers are kept in the browser after every choice; what was kept is
// `run`: {code, rater, started, answers, floor, spent, changes, tab}. `floor` is how far answers can be taken back.
(() => {
  const GUARD = 300; // [ms] for which a new pair takes no answer, so that one press is one answer
  const find = (id) => document.getElementById(id);
  const study = JSON.parse(find("study").textContent);
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
  const tab = random();
  const place = (code) => `study ${study.page.slice(0, 16)} ${code}`;
  const LAST = place("last");
  let run = null, list = [], ready = 0, unsaved = false, waiting = 0;

  const kept = new Kept(() => {
    find("denied").textContent = "This browser refuses to keep your answers. You can take part, but do not close or " +
      "reload this page before you have saved your results. Leaving private browsing usually helps.";
    find("denied").hidden = find("unkept").hidden = false;
  });

  // Time spent on the pair that is shown, while it can be seen.
  const clock = {
    spent: 0, since: null,
    set(spent) { this.spent = spent; this.since = null; this.turn(); },
    turn() {
      const now = performance.now(), on = ready > 0 && !document.hidden && !find("elsewhere").open;
      if (this.since !== null) this.spent += now - this.since;
      this.since = on ? now : null;
    },
    read() { this.turn(); return this.spent; },
  };

  const canvases = ["left", "reference", "right"].map((side) => find(`picture-${side}`));
  const view = new View(canvases, (now) => {
    find("zoom").textContent = `${Math.round(now.zoom * 100)} %`;
    find("black").value = now.black;
    find("white").value = now.white;
    find("gamma").value = Math.log2(now.gamma);
    find("gamma").setAttribute("aria-valuetext", now.gamma.toFixed(2));
    find("zoom-out").disabled = now.zoom <= 1;
    for (const way of ["left", "up", "down", "right"]) find(`go-${way}`).disabled = now.zoom <= 1;
  });

  const decoded = new Map();
  function picture(use) {
    const name = study.uses[use];
    if (!decoded.has(name)) {
      const text = atob(find(`p${name}`).textContent), values = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) values[i] = text.charCodeAt(i);
      decoded.set(name, { width: study.shapes[name][1], height: study.shapes[name][0], values });
    }
    return decoded.get(name);
  }
  const pictures = (n) => (list[n] ?? []).slice(1).map((use) => use && picture(use));

  function keep() {
    run.tab = tab;
    run.spent = clock.read();
    kept.set(place(run.code), run);
    kept.set(LAST, run.code);
    kept.setHere(LAST, run.code);
  }

  function screen(name) {
    for (const id of ["start", "play", "end"]) find(id).hidden = id !== name;
    find(name).focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  function begin(code) {
    const old = kept.get(place(code));
    list = study.lists[code];
    ready = 0;
    // Answers that belong to other pairs than these cannot be gone on with.
    const fits = Array.isArray(old?.answers) && old.answers.every((answer, k) => answer.trial === list[k]?.[0]);
    const fresh = { code, rater: random(), started: new Date().toISOString(), answers: [], floor: 0, spent: 0, changes: 0 };
    run = fits ? { ...fresh, ...old } : fresh;
    unsaved = run.answers.length > 0;
    clock.set(run.spent);
    keep();
    present();
  }

  // Show the pair that comes next. Both pictures are drawn before either is seen; only then time runs.
  function present() {
    const n = run.answers.length, turn = ++waiting;
    ready = 0;
    clock.set(run.spent);
    for (const id of ["undo", "undo-end"]) find(id).disabled = n <= run.floor;
    find("count").textContent = `${Math.min(n + 1, list.length)} of ${list.length}`;
    find("bar").setAttribute("aria-valuemax", list.length);
    find("bar").setAttribute("aria-valuenow", n);
    find("done").style.width = `${100 * n / list.length}%`;
    if (n === list.length) return finish();
    if (find("play").hidden) screen("play");
    find("pair").classList.add("drawing");
    const [left, right, reference] = pictures(n);
    find("reference").hidden = find("about-reference").hidden = !reference;
    if (!reference) showReference(false);
    view.show([left, reference, right]);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (turn !== waiting) return;
      find("pair").classList.remove("drawing");
      ready = performance.now();
      clock.turn();
      find("say").textContent = `Pair ${n + 1} of ${list.length}`;
      setTimeout(() => {
        if (turn !== waiting) return;
        const soon = new Set([n, n + 1].flatMap((k) => (list[k] ?? []).slice(1)).map((use) => study.uses[use]));
        for (const name of decoded.keys()) if (!soon.has(name)) decoded.delete(name);
        pictures(n + 1);
      }, 50);
    }));
  }

  function finish() {
    screen("end");
    find("saved").textContent = kept.works ? "They are kept in this browser, too." : "This browser has not kept them.";
  }

  // Another tab may have gone on with the same code: then this one must not write over it.
  function elsewhere() {
    const other = kept.get(place(run.code));
    if (!other || other.tab === tab) return false;
    if (!find("elsewhere").open) find("elsewhere").showModal();
    clock.turn();
    return true;
  }

  function choose(choice) {
    if (!ready || performance.now() - ready < GUARD || elsewhere()) return;
    const seconds = Math.round(clock.read() / 10) / 100;
    run.answers.push({ trial: list[run.answers.length][0], choice, seconds, changes: run.changes });
    next(0, 0);
  }

  function undo() {
    if (run.answers.length <= run.floor || elsewhere()) return;
    const last = run.answers.pop();
    run.floor = run.answers.length; // the last answer only
    next(last.seconds * 1000, last.changes + 1);
  }

  function next(spent, changes) {
    unsaved = true;
    ready = 0;
    clock.set(spent);
    run.changes = changes;
    keep();
    present();
  }

  function showReference(on = find("middle").hidden) {
    find("middle").hidden = !on;
    find("reference").setAttribute("aria-pressed", on);
    find("pair").classList.toggle("three", on);
    view.draw();
  }

  // The result file.
  function result() {
    const { rater, code, answers, started } = run;
    const complete = answers.length === list.length, exported = new Date().toISOString();
    return JSON.stringify({ format: 1, study: study.study, rater, code, page: study.page, answers, started, exported, complete }, null, 1);
  }
  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([result()], { type: "application/json" }));
    link.download = `study_${run.rater}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    tell(`Saved as ${link.download}, where your browser puts downloads. Send this file to whoever gave you the code.`);
  }
  async function copy() {
    find("text").value = result();
    find("text").select();
    let done = false;
    try {
      await navigator.clipboard.writeText(find("text").value);
      done = true;
    } catch {
      done = document.execCommand("copy"); // where the page is a file, some browsers have only this
    }
    if (done) unsaved = false;
    tell(done ? "Copied. Paste it into a message." : "Select the text, copy it, and paste it into a message.");
  }
  function tell(text) {
    find("results-text").textContent = find("saved").textContent = text;
  }
  function openResults() {
    tell(`${run.answers.length} of ${list.length} pairs answered. You can go on afterwards.`);
    find("text").value = result();
    find("results").showModal();
    find("text").scrollTop = 0;
  }

  function enter(event) {
    event.preventDefault();
    const code = find("code").value.toUpperCase().replace(/[^A-Z]/g, ""), known = Object.hasOwn(study.lists, code);
    find("code").setAttribute("aria-invalid", !known);
    const why = code ? `There is no code ${code} in this study; compare it with the one you were given.` : "Type the code you were given.";
    find("wrong").textContent = known ? "" : why;
    if (known) begin(code);
    else find("code").focus();
  }
  function leave() {
    find("about").close();
    if (elsewhere()) return;
    keep();
    ready = 0;
    run = null;
    kept.setHere(LAST, "");
    start();
  }
  function start() {
    const code = kept.get(LAST), old = code && Object.hasOwn(study.lists, code) && kept.get(place(code));
    find("resume").hidden = !old;
    if (old) {
      const done = old.answers.length, all = study.lists[code].length;
      find("continue").textContent = done < all ? "Continue" : "See results";
      find("resume-text").textContent = `Code ${code}, ${done} of ${all} pairs answered`;
      find("continue").onclick = () => begin(code);
    }
    find("code").value = "";
    screen("start");
  }

  const ways = { left: [1, 0], right: [-1, 0], up: [0, 1], down: [0, -1] };
  const go = (way) => view.moveBy(...ways[way].map((share) => share * canvases[0].clientWidth / 4));
  const actions = {
    ArrowLeft: () => choose("left"), a: () => choose("left"), ArrowRight: () => choose("right"), b: () => choose("right"),
    z: undo, "+": () => view.zoomBy(1.5), "=": () => view.zoomBy(1.5), "-": () => view.zoomBy(1 / 1.5), 0: () => view.reset(),
    r: () => { if (!find("reference").hidden) showReference(); },
  };
  document.addEventListener("keydown", (event) => {
    const busy = event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]");
    if (busy || find("start").hidden === false) return;
    if (event.repeat && event.key === "Enter") event.preventDefault(); // a key held down is one press
    const arrow = event.key.startsWith("Arrow"), name = arrow ? event.key : event.key.toLowerCase();
    if (arrow && event.target.type === "range") return; // moves the slider
    if (find("play").hidden) return void (name === "z" && !event.repeat && undo());
    if (arrow && event.shiftKey) go(event.key.slice(5).toLowerCase());
    else if (!Object.hasOwn(actions, name) || (event.repeat && !"+=-".includes(name))) return;
    else actions[name]();
    event.preventDefault();
  });
  const clicks = {
    "choose-left": () => choose("left"), "choose-right": () => choose("right"), undo, "undo-end": undo, reset: actions[0],
    "zoom-in": actions["+"], "zoom-out": actions["-"], reference: () => showReference(), help: () => find("about").showModal(),
    save: openResults, file: save, "save-end": save, copy, "text-end": () => { openResults(); copy(); }, leave, "leave-end": leave,
    more: () => find("more").setAttribute("aria-expanded", find("adjust").classList.toggle("open")),
    here: () => { find("elsewhere").close(); begin(run.code); },
  };
  for (const way in ways) clicks[`go-${way}`] = () => go(way);
  for (const id in clicks) find(id).addEventListener("click", clicks[id]);
  for (const id of ["black", "white", "gamma"]) {
    find(id).addEventListener("input", () => {
      let [black, white] = [Number(find("black").value), Number(find("white").value)];
      if (black >= white) [black, white] = id === "black" ? [white - 1, white] : [black, black + 1];
      view.setContrast(black, white, 2 ** Number(find("gamma").value));
    });
    find(id).addEventListener("pointerup", () => find(id).blur()); // so that the arrow keys choose again
  }
  find("enter").addEventListener("submit", enter);
  find("elsewhere").addEventListener("cancel", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", () => { clock.turn(); if (run && document.hidden && ready && !elsewhere()) keep(); });
  addEventListener("pagehide", () => { if (run && ready && !elsewhere()) keep(); });
  addEventListener("storage", (event) => { if (run && event.key === place(run.code)) elsewhere(); });
  addEventListener("beforeunload", (event) => { if (!kept.works && unsaved) event.preventDefault(); });

  kept.set(place("probe"), 1);
  const code = kept.getHere(LAST);
  if (Object.hasOwn(study.lists, code ?? "") && kept.get(place(code))) begin(code);
  else start();
})();
