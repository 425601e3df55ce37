// A picture's most frequent colours, and which of them each of its pixels comes nearest to.
async ([png, most]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, width, height);
  const at = (i) => (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
  const counts = new Map();
  for (let i = 0; i < data.length; i += 4) counts.set(at(i), (counts.get(at(i)) ?? 0) + 1);
  const palette = [...counts].sort((one, other) => other[1] - one[1]).slice(0, most)
    .map(([colour]) => colour);
  const far = (a, b) => ((a >> 16) - (b >> 16)) ** 2 + (((a >> 8) & 255) - ((b >> 8) & 255)) ** 2
    + ((a & 255) - (b & 255)) ** 2;
  const nearest = new Map();
  for (const colour of counts.keys()) {
    let best = 0;
    palette.forEach((one, i) => {
      if (far(colour, one) < far(colour, palette[best])) best = i;
    });
    nearest.set(colour, best);
  }
  const pixels = new Uint8Array(width * height);
  for (let i = 0; i < pixels.length; i += 1) pixels[i] = nearest.get(at(i * 4));
  const text = (bytes) => {
    let found = "";
    for (let i = 0; i < bytes.length; i += 8192) {
      found += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
    return btoa(found);
  };
  const colours = Uint8Array.from(palette.flatMap((one) => [one >> 16, (one >> 8) & 255, one & 255]));
  return JSON.stringify({ width, height, palette: text(colours), pixels: text(pixels) });
}
