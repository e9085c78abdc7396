// Ed25519 keys of this browser (WebCrypto): kept in IndexedDB, not extractable, never sent.
"use strict";
const keys = (() => {
  const PKCS8 = Uint8Array.from([48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]);
  const hex = (data) => Array.from(data, (each) => each.toString(16).padStart(2, "0")).join("");
  const unhex = (text) => Uint8Array.from(text.match(/../g) || [], (each) => parseInt(each, 16));

  function open() {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open("digitruck", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("keys", { keyPath: "name" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
  async function store(mode, act) {
    const database = await open();
    return new Promise((resolve, reject) => {
      const request = act(database.transaction("keys", mode).objectStore("keys"));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
  async function keep(entry) {
    if ((await list()).some((each) => each.name === entry.name)) throw new Error(`${entry.name}?`);
    await store("readwrite", (place) => place.put(entry));
    if (navigator.storage && navigator.storage.persist) await navigator.storage.persist();
  }
  const list = () => store("readonly", (place) => place.getAll());
  const remove = (name) => store("readwrite", (place) => place.delete(name));

  async function supported() {
    try {
      await crypto.subtle.importKey("raw", new Uint8Array(32).fill(1), "Ed25519", true, ["verify"]);
      return true;
    } catch (error) {
      return error.name !== "NotSupportedError" && Boolean(window.crypto && crypto.subtle);
    }
  }
  async function create(name, role) {
    const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    const entry = { name, role, key: pair.privateKey, public: new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)) };
    await keep(entry);
    return entry;
  }
  // The text of a NAME.key file of the `digitruck` command.
  async function take(text) {
    const field = (name) => (text.match(new RegExp(`^${name} = "([^"]*)"$`, "m")) || [])[1];
    const [name, role, publicHex, seed] = ["name", "role", "public", "seed"].map(field);
    if (!name || !role || !/^[0-9a-f]{64}$/.test(publicHex || "") || !/^[0-9a-f]{64}$/.test(seed || "")) throw new Error("this is not the text of a .key file");
    const key = await crypto.subtle.importKey("pkcs8", Uint8Array.from([...PKCS8, ...unhex(seed)]), "Ed25519", false, ["sign"]);
    const half = await crypto.subtle.importKey("raw", unhex(publicHex), "Ed25519", true, ["verify"]);
    const probe = new Uint8Array(16);
    if (!await crypto.subtle.verify("Ed25519", half, await crypto.subtle.sign("Ed25519", key, probe), probe)) throw new Error("the two halves of this key do not belong together");
    const entry = { name, role, key, public: unhex(publicHex) };
    await keep(entry);
    return entry;
  }
  // As `protocol.cose.key_id`.
  async function identity(entry) {
    return new Uint8Array(await crypto.subtle.digest("SHA-256", entry.public)).subarray(0, 8);
  }
  const sign = async (entry, message) => new Uint8Array(await crypto.subtle.sign("Ed25519", entry.key, message));
  const line = (entry) => `digitruck-key ${entry.role} ${entry.name} ${hex(entry.public)}`;
  return { create, identity, line, list, remove, sign, supported, take };
})();
