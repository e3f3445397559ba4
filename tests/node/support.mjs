// What the tests share: the server's address, and waiting with a limit.
import { get } from "node:http";

export const http = process.env.SERVER; // http://127.0.0.1:port
export const ws = http.replace(/^http/, "ws");

export function within(what, promise, seconds = 15) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// The next event of that name of an EventTarget.
export function once(target, name) {
  return within(name, new Promise((resolve) => target.addEventListener(name, resolve, { once: true })));
}

// count events of that name.
export function several(target, name, count) {
  return within(`${count} ${name}`, new Promise((resolve) => {
    const all = [];
    target.addEventListener(name, function add(event) {
      all.push(event);
      if (all.length === count) {
        target.removeEventListener(name, add);
        resolve(all);
      }
    });
  }));
}

export function publish() {
  return within("publish", new Promise((resolve, reject) => {
    get(`${http}/publish`, (response) => response.resume().on("end", resolve)).on("error", reject);
  }));
}
