import assert from "node:assert/strict";
import { test } from "node:test";
import { EventSource, WebSocket } from "undici";
import { http, once, publish, several, ws } from "./support.mjs";

async function open(path = "/echo", protocols = []) {
  const socket = new WebSocket(ws + path, protocols);
  socket.binaryType = "arraybuffer";
  await once(socket, "open");
  return socket;
}

async function echo(socket, data) {
  const answer = once(socket, "message");
  socket.send(data);
  return (await answer).data;
}

test("undici: text and binary messages of every length form", async () => {
  const socket = await open();
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    assert.equal(await echo(socket, "x".repeat(size)), "x".repeat(size));
    const bytes = new Uint8Array(size).fill(0xfe);
    assert.ok(Buffer.from(bytes).equals(Buffer.from(await echo(socket, bytes))));
  }
  assert.equal(await echo(socket, "grüße 世界 😀"), "grüße 世界 😀");
  socket.close();
  await once(socket, "close");
});

test("undici: closing handshakes from both sides", async () => {
  const ours = await open();
  const end = once(ours, "close");
  ours.close(3001, "enough");
  assert.deepEqual([(await end).code, (await end).wasClean], [3001, true]);

  const theirs = await open();
  const close = once(theirs, "close");
  theirs.send("close");
  assert.deepEqual([(await close).code, (await close).wasClean], [1000, true]);
});

test("undici: the subprotocol that the application chose", async () => {
  const socket = await open("/echo", ["chat.v1", "chat.v2"]);
  assert.equal(socket.protocol, "chat.v2");
  socket.close();
  await once(socket, "close");
});

test("undici: compressed broadcasts", async () => {
  const socket = await open();
  assert.match(socket.extensions, /permessage-deflate/);
  assert.equal(await echo(socket, "subscribe"), "subscribed");
  const messages = several(socket, "message", 3);
  for (let n = 0; n < 3; n += 1) await publish();
  assert.deepEqual((await messages).map((m) => m.data), Array(3).fill("x".repeat(2000)));
  socket.close();
  await once(socket, "close");
});

test("undici: EventSource with names, ids and a connection that comes again", async () => {
  const source = new EventSource(`${http}/events`);
  const plain = several(source, "message", 3);
  const named = once(source, "news");
  const resumed = once(source, "resumed");
  assert.deepEqual((await plain).map((e) => e.data), ["first\nof two lines", "grüße, 世界", "forged?\nevent: evil\nid: evil\n\ndata: evil"]);
  assert.deepEqual([(await named).data, (await named).lastEventId], ["named", "7"]);
  assert.equal((await resumed).data, "again after 7");
  source.close();
});
