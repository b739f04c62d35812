// One photo from this device's camera.

import { Photo } from "./photo.js";

/** Whether a camera can be asked for; browsers offer it on localhost and over HTTPS only. */
export const cameraExists = () => Boolean(navigator.mediaDevices?.getUserMedia);

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
    outcome.textContent = `The camera cannot be used: ${error.message}.`;
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
