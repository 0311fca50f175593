"use strict";
// Printing: all panels, in the light theme and as wide as a sheet of paper, however far the page was scrolled.

function printWhole() {
  let open = [];  // what was unfolded before
  addEventListener("beforeprint", () => {
    if (view.printing) return;
    view.printing = true;
    open = [byId("controls"), byId("listed")].map((details) => details.open);
    byId("controls").open = byId("listed").open = true;
    document.documentElement.classList.add("printing");
    document.documentElement.dataset.theme = "light";
    list();
    for (const panel of panels.values()) {
      // Plotly draws before its promise returns, and the browser takes the page as it is at the end of this handler.
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
