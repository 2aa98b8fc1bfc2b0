// Exchanges the regions of the status page as they change. All markup comes escaped from the server.
const connection = document.getElementById("connection");
const connectionText = document.getElementById("connection-text");
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
let seenAt = new Date();

function place(name) {
  return document.querySelector(`[data-live="${CSS.escape(name)}"]`);
}

function show({ title, layout, regions }) {
  if (layout !== document.body.dataset.layout) {
    location.reload();
    return;
  }
  document.title = title;
  for (const [name, content] of Object.entries(regions)) {
    const region = place(name);
    if (region !== null && region.innerHTML !== content) region.innerHTML = content;
  }
}

function setConnection(state, text) {
  if (connection.dataset.state === state && connectionText.textContent === text) return;
  connection.dataset.state = state;
  connectionText.textContent = text;
  document.body.classList.toggle("stale", state === "lost");
}

const source = new EventSource("/api/v1/events?view=page");
source.addEventListener("page", (event) => {
  seenAt = new Date();
  show(JSON.parse(event.data));
  setConnection("live", "live");
});
source.addEventListener("error", () => {
  setConnection("lost", `connection lost: figures are from ${clock.format(seenAt)}`);
  // Refused for good, for example because the token has expired: the server shows what is needed.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});

// A stream that is open and silent is as good as lost.
setInterval(() => {
  if (Date.now() - seenAt.getTime() > 5000) setConnection("lost", `nothing heard: figures are from ${clock.format(seenAt)}`);
}, 1000);
