"use strict";
(() => {
  const about = JSON.parse(document.getElementById("about").textContent);
  const pixels = document.querySelectorAll("script.raw");
  const place = `diffpath:${about.study}:${about.reader}`;
  const find = (id) => document.getElementById(id);
  // Of each trial: the answer from 1 (0 for none), milliseconds that it was looked at, and how often it was changed.
  let trials = Array.from({ length: about.trials }, () => ({ answer: 0, milliseconds: 0, changes: 0 }));
  let current = 0;
  let since = null;
  let stored = true;

  // Storage: after every answer; a browser without it says so.
  const isState = (found) => Array.isArray(found) && found.length === about.trials
    && found.every((trial) => Number.isInteger(trial.answer) && trial.answer >= 0 && trial.answer <= about.choices.length);
  function load() {
    try {
      const found = JSON.parse(localStorage.getItem(place));
      if (isState(found)) trials = found;
    } catch {
      stored = false;
    }
  }
  function store() {
    try {
      localStorage.setItem(place, JSON.stringify(trials));
      stored = localStorage.getItem(place) !== null;
    } catch {
      stored = false;
    }
    warn();
  }
  function warn() {
    find("warning").textContent = "This browser keeps nothing: answers are lost when the page is closed. "
      + "Finish in one go, or save the answers so far before you close it.";
    find("warning").hidden = stored;
  }

  // Time counts while a trial is on the screen of a page that is looked at.
  function stopClock() {
    if (since !== null) trials[current].milliseconds += Math.round(performance.now() - since);
    since = null;
  }
  function startClock() {
    since = document.hidden || find("trial").hidden ? null : performance.now();
  }

  const answered = () => trials.filter((trial) => trial.answer).length;
  const firstOpen = () => trials.findIndex((trial) => !trial.answer);

  function draw(canvas, text) {
    const bytes = atob(text);
    const context = canvas.getContext("2d");
    const image = context.createImageData(about.width, about.height);
    for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) {
      image.data[to] = bytes.charCodeAt(from);
      image.data[to + 1] = bytes.charCodeAt(from + 1);
      image.data[to + 2] = bytes.charCodeAt(from + 2);
      image.data[to + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function only(id) {
    for (const name of ["intro", "trial", "done"]) find(name).hidden = name !== id;
    window.scrollTo(0, 0);
  }

  function show(trial) {
    stopClock();
    current = trial;
    only("trial");
    document.querySelectorAll("canvas").forEach((canvas, index) =>
      draw(canvas, pixels[trial * about.shown + index].textContent));
    find("count").textContent = `${trial + 1} of ${about.trials}`;
    find("bar").value = answered();
    for (const button of find("choices").children)
      button.setAttribute("aria-pressed", String(Number(button.dataset.answer) === trials[trial].answer));
    find("back").disabled = trial === 0;
    find("next").disabled = trial === about.trials - 1 || !trials[trial].answer;
    find("note").textContent = `${answered()} answered${stored ? ", kept in this browser" : ""}`;
    startClock();
  }

  function choose(answer) {
    stopClock();
    const trial = trials[current];
    if (trial.answer && trial.answer !== answer) trial.changes += 1;
    trial.answer = answer;
    store();
    const open = trials.findIndex((each, index) => index > current && !each.answer);
    const next = open < 0 ? firstOpen() : open;
    if (next < 0) finish();
    else show(next);
  }

  const csv = () => [about.columns.join(","), ...trials.flatMap((trial, index) => trial.answer
    ? [[about.study, about.reader, index + 1, trial.answer, trial.milliseconds, trial.changes].join(",")] : [])].join("\n") + "\n";
  const fileName = `answers_${about.study}_reader_${about.reader}.csv`;

  function finish() {
    stopClock();
    store();
    const left = about.trials - answered();
    find("thanks").textContent = left ? `${answered()} of ${about.trials} are answered` : "All answered: thank you";
    find("file").textContent = fileName;
    find("csv").value = csv();
    find("told").textContent = "";
    only("done");
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = fileName;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    find("told").textContent = "Saved where this browser puts downloads.";
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(csv());
    } catch {
      find("csv").select();
      if (!document.execCommand("copy")) {
        find("told").textContent = "Select the text below and copy it.";
        return;
      }
    }
    find("told").textContent = "Copied.";
  }

  about.choices.forEach((name, index) => {
    const button = document.createElement("button");
    const digit = document.createElement("kbd");
    digit.textContent = index < 9 ? index + 1 : "";
    button.dataset.answer = index + 1;
    button.append(digit, name);
    button.addEventListener("click", () => choose(index + 1));
    find("choices").append(button);
  });
  const back = () => current > 0 && show(current - 1);
  const next = () => current < about.trials - 1 && trials[current].answer && show(current + 1);
  find("begin").addEventListener("click", () => (firstOpen() < 0 ? finish() : show(firstOpen())));
  find("back").addEventListener("click", back);
  find("next").addEventListener("click", next);
  find("finish").addEventListener("click", finish);
  find("return").addEventListener("click", () => show(current));
  find("save").addEventListener("click", save);
  find("copy").addEventListener("click", copy);
  document.addEventListener("keydown", (event) => {
    if (find("trial").hidden || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
    if (digit && digit <= about.choices.length) choose(digit);
    else if (event.key === "Backspace" || event.key === "ArrowLeft") back();
    else if (event.key === "ArrowRight") next();
    else return;
    event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      stopClock();
      store();
    } else if (!find("trial").hidden) {
      startClock();
    }
  });
  // Another tab of the same page has answered.
  window.addEventListener("storage", (event) => {
    if (event.key !== place) return;
    load();
    if (!find("trial").hidden) show(current);
  });
  window.addEventListener("beforeunload", (event) => {
    if (!stored && answered()) event.preventDefault();
  });

  load();
  store();
  if (answered()) find("begin").textContent = firstOpen() < 0 ? "To the answers" : `Go on (${answered()} of ${about.trials} answered)`;
})();
