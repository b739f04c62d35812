// Drawings to try the page with, and a scene made of them.

import { Photo } from "./photo.js";

export const SAMPLES = {
  delivery_truck: "a delivery truck",
  person_walking: "a person walking",
  dog: "a dog",
  taxi: "a taxi",
  police_car: "a police car",
  package: "a parcel",
};

const SIDE = 224;

/** One of the drawings. */
export async function sample(name) {
  return new Photo(await file(name), `${name}.png`);
}

/** Six frames of a house and a tree as the light changes, and two in which something is there. */
export async function scene() {
  const [house, tree, truck] = await Promise.all(["house", "tree", "delivery_truck"].map(picture));
  const lights = [0, 0.05, 0.1, 0.15, 0.2, 0.25];
  const usual = lights.map((dusk, place) =>
    draw(`usual-${place + 1}`, house, tree, { dusk, sway: place % 3 }),
  );
  const now = [
    draw("now-quiet", house, tree, { dusk: 0.12, sway: 1 }),
    draw("now-truck", house, tree, { dusk: 0.12, sway: 1, visitor: truck }),
  ];
  return { usual: await Promise.all(usual), now: await Promise.all(now) };
}

async function draw(name, house, tree, { dusk, sway, visitor = null }) {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#bfe0f5";
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.fillStyle = "#8fb573";
  pen.fillRect(0, 156, SIDE, SIDE - 156);
  pen.drawImage(house, 20, 48, 118, 118);
  pen.drawImage(tree, 146 + sway, 66, 66, 100);
  if (visitor) pen.drawImage(visitor, 26, 70, 184, 140);
  pen.fillStyle = `rgb(10 14 40 / ${dusk})`;
  pen.fillRect(0, 0, SIDE, SIDE);
  const blob = await new Promise((resolve) => {
    canvas.toBlob(resolve, "image/png");
  });
  return new Photo(blob, `${name}.png`);
}

async function picture(name) {
  return createImageBitmap(await file(name));
}

async function file(name) {
  return (await fetch(`page/samples/${name}.png`)).blob();
}
