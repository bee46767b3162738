// What happens in the reading room while one is in it. Both connections come back after a reload of the server.
const line = (...parts) => {
  const item = document.createElement("li");
  item.append(...parts);
  return item;
};
const element = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text, ...more });

// Reviews, by server-sent events: the browser itself connects again, and names the last one it has.
const reviews = $(".feed");
new EventSource(reviews.dataset.feed).addEventListener("review", (event) => {
  const { name, stars, text, book, url } = JSON.parse(event.data);
  const parts = [element("b", name), " on ", element("a", book, { href: url }), " "];
  reviews.prepend(line(...parts, element("span", stars, { className: "stars" }), element("p", text)));
});

// The talk, by a websocket: what was said meanwhile comes first, what could not be sent waits.
const talk = $(".talk"), say = $(".say"), state = $(".state");
const unsent = [];
let socket, delay = 0;

function connect() {
  const address = new URL(`chat/?after=${talk.dataset.after}`, location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.addEventListener("open", () => {
    delay = 0;
    state.textContent = "You are at the table.";
    unsent.splice(0).forEach((words) => socket.send(words));
  });
  socket.addEventListener("message", ({ data }) => {
    const { id, name, text, error } = JSON.parse(data);
    if (error) return (state.textContent = error);
    talk.dataset.after = id;
    talk.append(line(element("b", name), ` ${text}`));
    talk.scrollTop = talk.scrollHeight;
  });
  socket.addEventListener("close", () => {
    state.textContent = "Nobody hears you at the moment.";
    setTimeout(connect, delay * (0.5 + Math.random() / 2));
    delay = Math.min(Math.max(500, delay * 2), 15000);
  });
}

if (talk) {
  say.elements.name.value = localStorage.visitor ?? "";
  say.addEventListener("submit", (event) => {
    event.preventDefault();
    const { name, text } = say.elements;
    localStorage.visitor = name.value;
    const words = JSON.stringify({ name: name.value, text: text.value });
    if (socket.readyState === WebSocket.OPEN) socket.send(words);
    else unsent.push(words);
    text.value = "";
  });
  talk.scrollTop = talk.scrollHeight;
  connect();
}
