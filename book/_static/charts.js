// Draws each chart of the page in place of its static picture, which stays where drawing fails.
async function drawChart(box) {
  const view = document.createElement("div");
  view.className = "chart-view";
  try {
    const spec = JSON.parse(box.querySelector("script").textContent);
    box.prepend(view);
    await window.vegaEmbed(view, spec, {
      mode: "vega-lite",
      renderer: "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
    });
    box.querySelector("img")?.remove();
    box.dataset.drawn = "true";
  } catch (error) {
    view.remove();
    box.dataset.drawn = "false";
    console.error("A chart could not be drawn; its static picture stays.", error);
  }
}

document.querySelectorAll(".chart").forEach(drawChart);
