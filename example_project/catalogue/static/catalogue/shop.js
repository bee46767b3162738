// Three small helps; the shop works without them.
const $ = (selector) => document.querySelector(selector);

// The lamp: light or dark, remembered; until one uses it, the system decides.
const root = document.documentElement, lamp = $(".lamp");
root.style.colorScheme = localStorage.scheme ?? "";
lamp.hidden = false;
lamp.addEventListener("click", () => {
  const dark = (localStorage.scheme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.style.colorScheme = localStorage.scheme = dark ? "light" : "dark";
});

// Titles while one types.
const box = $("#q");
let timer;
box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const words = box.value.trim();
    if (words.length < 2) return;
    const answer = await fetch(`${box.dataset.titles}?q=${encodeURIComponent(words)}`);
    if (!answer.ok || words !== box.value.trim()) return;
    const { books } = await answer.json();
    $("#suggestions").replaceChildren(...books.map(({ title, author }) => new Option(author, title)));
  }, 200);
});

// The courier's answer, on the page.
$(".quote")?.addEventListener("click", async (event) => {
  event.preventDefault();
  const link = event.target, output = $("output");
  output.textContent = "Asking the courier …";
  try {
    const { courier, price, days } = await (await fetch(link.href)).json();
    output.textContent = `${courier}: £${price}, ${days} days.`;
  } catch {
    output.textContent = "The courier does not answer. Please try again later.";
  }
});
