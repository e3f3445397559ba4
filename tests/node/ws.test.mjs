import assert from "node:assert/strict";
import { test } from "node:test";
import WebSocket from "ws";
import { once, publish, several, within, ws } from "./support.mjs";

async function open(path = "/echo", protocols = [], options = { perMessageDeflate: false }) {
  const socket = new WebSocket(ws + path, protocols, options);
  await once(socket, "open");
  return socket;
}

async function echo(socket, data, options = {}) {
  const answer = once(socket, "message");
  socket.send(data, options);
  return (await answer).data;
}

test("ws: text, binary and empty messages of every length form", async () => {
  const socket = await open();
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    assert.equal(await echo(socket, "x".repeat(size)), "x".repeat(size));
    const bytes = Buffer.alloc(size, 0xfe);
    assert.ok(bytes.equals(await echo(socket, bytes)));
  }
  assert.equal(await echo(socket, "grüße 世界 😀"), "grüße 世界 😀");
  socket.close();
});

test("ws: fragments, with a ping between", async () => {
  const socket = await open();
  const answer = once(socket, "message");
  const pong = new Promise((resolve) => socket.on("pong", resolve));
  socket.send("one ", { fin: false });
  socket.ping("between");
  socket.send("two ", { fin: false });
  socket.send("three");
  assert.equal((await answer).data, "one two three");
  assert.equal(String(await within("pong", pong)), "between");
  socket.close();
});

test("ws: closing handshakes from both sides", async () => {
  const ours = await open();
  const end = once(ours, "close");
  ours.close(3001, "enough");
  assert.deepEqual([(await end).code, (await end).wasClean], [3001, true]);

  const theirs = await open();
  const close = once(theirs, "close");
  theirs.send("close");
  assert.deepEqual([(await close).code, (await close).wasClean], [1000, true]);
});

test("ws: the subprotocol that the application chose", async () => {
  const socket = await open("/echo", ["chat.v1", "chat.v2"]);
  assert.equal(socket.protocol, "chat.v2");
  socket.close();
});

test("ws: a refused request is an ordinary response", async () => {
  const socket = new WebSocket(`${ws}/forbidden`);
  const response = await within("response", new Promise((resolve) => socket.on("unexpected-response", (_, r) => resolve(r))));
  assert.equal(response.statusCode, 403);
  response.destroy();
});

for (const terms of [
  {},
  { serverNoContextTakeover: true, clientNoContextTakeover: true },
  { clientMaxWindowBits: 9 },
  { serverMaxWindowBits: 9, clientMaxWindowBits: 15 },
]) {
  test(`ws: permessage-deflate ${JSON.stringify(terms)}, both ways`, async () => {
    const socket = await open("/echo", [], { perMessageDeflate: { threshold: 0, ...terms } });
    assert.match(socket.extensions, /permessage-deflate/);
    for (let n = 0; n < 3; n += 1) {
      const text = `the same again and again, ${"and again ".repeat(500)}`;
      assert.equal(await echo(socket, text), text);
      const bytes = Buffer.alloc(20000, "abcdefg");
      assert.ok(bytes.equals(await echo(socket, bytes)));
    }
    assert.equal(await echo(socket, ""), "");
    assert.equal(await echo(socket, "subscribe"), "subscribed");
    const messages = several(socket, "message", 2);
    await publish();
    await publish();
    assert.deepEqual((await messages).map((m) => m.data), ["x".repeat(2000), "x".repeat(2000)]);
    socket.close();
    await once(socket, "close");
  });
}

test("ws: a broadcast reaches 50 clients, once each", async () => {
  const sockets = await Promise.all(Array.from({ length: 50 }, () => open("/echo", [], { perMessageDeflate: true })));
  for (const socket of sockets) assert.equal(await echo(socket, "subscribe"), "subscribed");
  const all = sockets.map((socket) => several(socket, "message", 1));
  await publish();
  for (const [message] of await Promise.all(all)) assert.equal(message.data, "x".repeat(2000));
  for (const socket of sockets) assert.equal(await echo(socket, "still one"), "still one");
  sockets.forEach((socket) => socket.close());
});

test("ws: 1,000 messages in order", async () => {
  const socket = await open();
  const messages = several(socket, "message", 1000);
  socket.send("many");
  assert.deepEqual((await messages).map((m) => Number(m.data)), Array.from({ length: 1000 }, (_, n) => n));
  socket.close();
});
