// Loaded by every page: draws its plotly charts, and mends what the theme leaves for those who do not see or point.
(function () {
  "use strict";

  // Colours and room of the page; plotly's own default is made for white pages and wide screens.
  function suitThePage(box) {
    const ink = getComputedStyle(document.body).color;
    const grid = "rgba(128, 128, 128, 0.35)";
    const marks = { "marker.line.color": ink, "marker.line.width": 0.7 }; // dark points on a dark page
    return Plotly.update(box, marks, {
      paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      "font.color": ink, "font.size": 14,
      "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, "xaxis.linecolor": grid, "yaxis.linecolor": grid,
    });
  }

  function draw(holder) {
    const box = document.getElementById(holder.dataset.chart);
    const { data, layout, config } = JSON.parse(holder.textContent);
    const menus = layout.updatemenus || [];
    const sliders = layout.sliders || [];
    delete layout.updatemenus; // the selects above the chart do their work: they answer to keys and to fingers
    delete layout.sliders;
    const narrow = box.clientWidth < 500;
    for (const trace of narrow ? data : []) {
      if (trace.marker && trace.marker.colorbar) {
        const bar = trace.marker.colorbar;
        Object.assign(bar, { orientation: "h", x: 0.5, xanchor: "center", y: 1, yanchor: "bottom", len: 1, thickness: 15 });
        bar.title = { ...bar.title, side: "top" };
      }
    }
    layout.margin = { ...layout.margin, t: 30, r: 10 }; // the room above was for the menus
    Plotly.newPlot(box, data, layout, { displaylogo: false, ...config, responsive: true })
      .then(() => suitThePage(box));
    new MutationObserver(() => suitThePage(box))
      .observe(document.documentElement, { attributeFilter: ["data-theme"] });
    document.querySelectorAll(`select[data-of="${box.id}"]`).forEach((select, i) => {
      select.addEventListener("change", () => {
        const button = menus[i].buttons[select.selectedIndex];
        Plotly[button.method](box, ...button.args);
      });
    });
    document.querySelectorAll(`input[type=range][data-of="${box.id}"]`).forEach((input, i) => {
      input.addEventListener("input", () => {
        const step = sliders[i].steps[input.valueAsNumber];
        input.setAttribute("aria-valuetext", step.label);
        input.parentElement.querySelector("output").textContent = step.label;
        Plotly[step.method](box, ...step.args);
      });
    });
  }

  function mend() {
    // Wide tables scroll inside their own box, which keys must reach.
    document.querySelectorAll(".pst-scrollable-table-container").forEach((box) => {
      const heading = box.closest("section")?.querySelector("h1, h2, h3");
      const name = heading ? heading.firstChild.textContent.trim() : document.title;
      Object.entries({ tabindex: 0, role: "group", "aria-label": `table: ${name}` }).forEach(([key, value]) =>
        box.setAttribute(key, value));
    });
    // A header without a word heads nothing.
    document.querySelectorAll("article thead").forEach((head) => {
      if (!head.textContent.trim()) { head.remove(); }
    });
    document.querySelectorAll("article th").forEach((cell) => {
      if (!cell.textContent.trim()) { cell.replaceWith(document.createElement("td")); }
    });
    // The role that docutils gives to entries of a bibliography has been withdrawn, and a list needs items.
    document.querySelectorAll("[role=doc-biblioentry]").forEach((entry) => entry.setAttribute("role", "listitem"));
    const home = document.querySelector(".bd-sidebar-primary .navbar-brand")?.parentElement;
    if (home) { home.setAttribute("role", "navigation"); home.setAttribute("aria-label", "Home"); }
  }

  document.addEventListener("DOMContentLoaded", () => {
    mend();
    document.querySelectorAll("script[data-chart]").forEach(draw);
  });
})();
