// How much time is left, wherever an element says until when.

import { now } from "/pages/api.js";

/** Seconds as people count them. */
function left(seconds) {
  if (seconds <= 0) return "time is up";
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (n) => String(n).padStart(2, "0");
  if (h >= 48) return `${Math.floor(h / 24)} days left`;
  return h > 0 ? `${h}:${two(m)}:${two(s)} left` : `${m}:${two(s)} left`;
}

/** Brings every countdown up to now. */
export function tick() {
  for (const clock of document.querySelectorAll("[data-expires]")) {
    const seconds = (Date.parse(clock.dataset.expires) - now()) / 1000;
    const said = left(seconds);
    if (clock.textContent !== said) clock.textContent = said;
    clock.classList.toggle("soon", seconds < 300);
  }
}
