// One photo from this device's camera.

import { announce } from "./announcer.js";
import { Photo } from "./photo.js";

/** Why the requested camera cannot be used, as a sentence. */
export const whyNot = ({ name }) => WHY_NOT[name] ?? "The camera cannot be used.";

const WHY_NOT = {
  NotAllowedError: "The camera cannot be used: this page was not allowed to.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera cannot be used: another program may be using it.",
};

/** Why there is no camera here, as a sentence; null if one can be requested. */
export function whyNoCamera() {
  if (navigator.mediaDevices?.getUserMedia) return null;
  return isSecureContext
    ? "No camera: this browser does not offer one."
    : "No camera: browsers offer it only over HTTPS, or on localhost.";
}

/** Opens the dialog; returns the photo, or null if none was taken. */
export async function takePhoto() {
  const dialog = document.getElementById("camera");
  const video = document.getElementById("camera-picture");
  const outcome = document.getElementById("camera-outcome");
  const take = document.getElementById("camera-take");
  const close = document.getElementById("camera-close");
  outcome.textContent = "";
  take.disabled = true;
  dialog.showModal();
  const closed = new Promise((resolve) => {
    dialog.addEventListener("close", resolve, { once: true });
  });
  close.onclick = () => dialog.close();
  let photo = null;
  take.onclick = async () => {
    photo = await still(video);
    dialog.close();
  };
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    video.srcObject = stream;
    await video.play();
    take.disabled = false;
  } catch (error) {
    outcome.dataset.state = "problem";
    outcome.textContent = whyNot(error);
    announce(outcome.textContent);
  }
  await closed;
  stream?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  return photo;
}

async function still(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => {
    canvas.toBlob(resolve, "image/jpeg", 0.95);
  });
  return new Photo(blob, `camera-${Date.now()}.jpg`);
}
