"use strict";
// The page of the endpoint: sends a photo to POST v1/restore and shows both versions, one over the other.

const at = (id) => document.getElementById(id);
const ENDINGS = {
  "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tiff", "image/bmp": "bmp",
  "image/heic": "heic", "image/avif": "avif", "image/jxl": "jxl",
};
const SHOWN = /\.(jpe?g|jpe|jfif|jif|png|webp|avif|bmp)$/i; // the formats that browsers show
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const MAX_TRIES = 20; // while the server has no room

let photo = null; // the File that was chosen last
let sending = null; // the request under way
let waiting = null; // the timer of the next try
let zoom = 0; // an index of ZOOMS
let urls = []; // object URLs of the photos on show, revoked before the next are shown

async function start() {
  at("curl").textContent = `curl --data-binary @photo.jpg -o restored.jpg ${new URL("v1/restore", location.href)}`;
  await Promise.all([listModels(), listExamples()]);
}

async function listModels() {
  const response = await fetch("v1/models", { headers: authorization() });
  if (response.status === 401) return askForKey();
  if (!response.ok) return say(await problemOf(response), true);
  const about = await response.json();
  say("");
  at("model").replaceChildren(
    ...about.models.map((model) => new Option(`${model.name} (${about.restorer ?? `DiffUIR-${model.variant}`})`, model.name, model.default, model.default)),
  );
  at("steps").disabled = about.restorer !== null;
  at("steps").max = about.most_steps;
  at("steps").value = about.steps;
  at("limits").textContent =
    `JPEG, PNG, WebP, AVIF, HEIC, JPEG XL, TIFF, BMP or RAW, up to ${Math.round(about.max_bytes / 2 ** 20)} MiB ` +
    `and ${Math.round(about.max_pixels / 1e6)} megapixels`;
}

async function listExamples() {
  const response = await fetch("examples");
  if (!response.ok) return;
  for (const name of await response.json()) {
    const button = document.createElement("button");
    const image = document.createElement("img");
    const label = document.createElement("span");
    button.type = "button";
    image.src = `examples/${name}.jpg`;
    image.alt = "";
    image.loading = "lazy";
    label.textContent = name.replace("_", " ");
    button.append(image, label);
    button.addEventListener("click", async () => {
      const bytes = await (await fetch(image.src)).blob();
      take(new File([bytes], `${name}.jpg`, { type: "image/jpeg" }));
    });
    const item = document.createElement("li");
    item.append(button);
    at("examples").append(item);
  }
}

function authorization() {
  const key = at("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function askForKey() {
  at("key-field").hidden = false;
  at("key").focus();
  say("This server requires an API key.", true);
}

function take(file) {
  photo = file;
  at("restore").disabled = false;
  restore();
}

function restore(tries = 1) {
  if (!photo) return;
  if (sending) sending.abort();
  clearTimeout(waiting);
  const query = new URLSearchParams({ strength: at("strength").value });
  if (!at("steps").disabled) query.set("steps", at("steps").value);
  if (at("model").value) query.set("model", at("model").value);
  if (at("equalise").checked) query.set("equalise", "true");
  // Browsers cannot show TIFF, HEIC, JPEG XL and RAW: ask for PNG instead.
  const shown = SHOWN.test(photo.name) || /^image\/(jpeg|png|webp|avif|bmp)$/.test(photo.type);
  if (!shown) query.set("format", "png");
  const request = (sending = new XMLHttpRequest());
  const given = photo;
  request.open("POST", `v1/restore?${query}`);
  for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
  request.responseType = "blob";
  request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : null);
  request.upload.onload = () => {
    progress(null);
    say("Restoring …");
  };
  request.onload = async () => {
    done(request);
    if (request.status === 200) return show(given, request);
    const response = new Response(request.response, { status: request.status, headers: { "Content-Type": "application/json" } });
    if (request.status === 401) return askForKey();
    const pause = Number(request.getResponseHeader("Retry-After"));
    if (request.status === 503 && pause && tries < MAX_TRIES) {
      waiting = setTimeout(() => restore(tries + 1), pause * 1000);
      return say("The server is busy: trying again soon …");
    }
    say(await problemOf(response), true);
  };
  request.onerror = () => {
    done(request);
    say("The server does not answer: is it still running?", true);
  };
  progress(0);
  say("Sending …");
  request.send(given);
}

function done(request) {
  if (sending === request) sending = null;
  at("progress").hidden = true;
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    return `${problem.title}: ${problem.detail}`;
  } catch {
    return `The server responded with status ${response.status}.`;
  }
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function progress(share) {
  at("progress").hidden = false;
  if (share === null) at("progress").removeAttribute("value");
  else at("progress").value = share;
}

async function show(given, request) {
  urls.forEach(URL.revokeObjectURL);
  urls = [given, request.response].map((blob) => URL.createObjectURL(blob));
  const [before, after] = urls;
  const type = request.response.type;
  at("download").href = after;
  at("download").download = `${given.name.replace(/\.[^.]*$/, "") || "photo"}-restored.${ENDINGS[type] || "bin"}`;
  at("before").src = before;
  at("after").src = after;
  const shown = await Promise.allSettled([at("before").decode(), at("after").decode()]);
  const comparable = shown[0].status === "fulfilled";
  at("result").classList.toggle("no-before", !comparable);
  at("result").hidden = false;
  at("stage").style.setProperty("--shape", at("after").naturalWidth / at("after").naturalHeight || 1);
  divide(50);
  zoomTo(0);
  const header = (name) => request.getResponseHeader(name);
  const took = /whole;dur=([\d.]+)/.exec(header("Server-Timing") || "");
  const model = /restore;dur=([\d.]+)/.exec(header("Server-Timing") || "");
  at("facts").textContent = [
    `${at("after").naturalWidth} × ${at("after").naturalHeight}`,
    `${header("Diffuir-Model")}, ${header("Diffuir-Restorer") ?? `${header("Diffuir-Steps")} steps`}, ${header("Diffuir-Precision")}, ${header("Diffuir-Tiles")}`,
    model && took ? `model ${(model[1] / 1000).toFixed(2)} s, total ${(took[1] / 1000).toFixed(2)} s` : "",
    header("Diffuir-Notes") || "",
  ].filter(Boolean).join(" · ");
  const converted = SHOWN.test(given.name) || type !== "image/png" ? "" : " The result is a PNG, which it can show.";
  say(comparable ? "Done. Move the slider to compare." : `Done. This browser cannot show the original photo.${converted}`);
}

function divide(percent) {
  const value = Math.min(100, Math.max(0, percent));
  at("divide").value = value;
  at("stage").style.setProperty("--at", `${value}%`);
}

function zoomTo(index) {
  const [x, y] = middleOf(at("viewer"));
  const from = at("stage").getBoundingClientRect();
  const share = [(x - from.left) / from.width, (y - from.top) / from.height];
  zoom = Math.min(ZOOMS.length - 1, Math.max(0, index));
  at("stage").style.setProperty("--zoom", ZOOMS[zoom]);
  at("zoom").textContent = zoom === 0 ? "fit" : `${ZOOMS[zoom] * 100}%`;
  at("smaller").ariaDisabled = zoom === 0; // a disabled button would lose the focus
  at("larger").ariaDisabled = zoom === ZOOMS.length - 1;
  // Keep the middle of the view where it was.
  const to = at("stage").getBoundingClientRect();
  const [newX, newY] = middleOf(at("viewer"));
  at("viewer").scrollBy(to.left + share[0] * to.width - newX, to.top + share[1] * to.height - newY);
}

function middleOf(element) {
  const box = element.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}

function follow(event) {
  const box = at("stage").getBoundingClientRect();
  divide(((event.clientX - box.left) / box.width) * 100);
}

at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that choosing the same file again fires a change event
  if (file) take(file);
});
at("options").addEventListener("submit", (event) => {
  event.preventDefault();
  restore();
});
at("key").addEventListener("change", listModels);
at("divide").addEventListener("input", (event) => divide(Number(event.target.value)));
at("handle").addEventListener("pointerdown", (event) => {
  at("handle").setPointerCapture(event.pointerId);
  event.preventDefault();
});
at("handle").addEventListener("pointermove", (event) => at("handle").hasPointerCapture(event.pointerId) && follow(event));
at("smaller").addEventListener("click", () => zoomTo(zoom - 1));
at("larger").addEventListener("click", () => zoomTo(zoom + 1));
at("fit").addEventListener("click", () => zoomTo(0));

// The whole window accepts a drop: one beside the field would replace the page by the photo.
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => event.relatedTarget === null && at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) take(file);
});

start();
