"use strict";
const place = document.getElementById("player");
AsciinemaPlayer.create({ url: place.dataset.events }, place, {
  autoPlay: false,
  controls: true,
  fit: "width",
  idleTimeLimit: 2,
  preload: true,
  startAt: Number(place.dataset.start),
  poster: `npt:${place.dataset.start || "0"}`,
  terminalFontFamily: "ui-monospace, monospace",
});
