"use strict";
// Print all panels, in the light theme and with the width of a sheet of paper, at any scroll position.

function printWhole() {
  let open = [];  // the parts that were unfolded before
  addEventListener("beforeprint", () => {
    if (view.printing) return;
    view.printing = true;
    open = [byId("controls"), byId("listed")].map((details) => details.open);
    byId("controls").open = byId("listed").open = true;
    document.documentElement.classList.add("printing");
    document.documentElement.dataset.theme = "light";
    list();
    for (const panel of panels.values()) {
      // Plotly draws before its promise returns. The browser prints the page in its state at the end of this handler.
      draw(panel).catch((error) => console.error(`${panel.title}:`, error));
    }
  });
  addEventListener("afterprint", () => {
    if (!view.printing) return;
    view.printing = false;
    [byId("controls").open, byId("listed").open] = open;
    document.documentElement.classList.remove("printing");
    showTheme();
  });
}
