// A key presses the button that names it. Without this file the buttons work all the same.
let sent = false;
addEventListener("pageshow", () => { sent = false; });
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const key = event.key.toLowerCase();
  const button = [...document.querySelectorAll("button")].find((one) => one.dataset.key === key);
  if (!button || sent) return; // a second key before the next pair is there would be about this one
  sent = true;
  button.click();
});
