// Just enough CBOR (RFC 8949): read what a signature covers, and write the few structures around it (RFC 9052).
"use strict";
const cbor = (() => {
  function head(major, count) {
    if (count < 24) return [major << 5 | count];
    if (count < 256) return [major << 5 | 24, count];
    if (count < 65536) return [major << 5 | 25, count >> 8, count & 255];
    return [major << 5 | 26, count >>> 24, count >> 16 & 255, count >> 8 & 255, count & 255];
  }
  const join = (...parts) => {
    const whole = new Uint8Array(parts.reduce((sum, each) => sum + each.length, 0));
    let at = 0;
    for (const each of parts) { whole.set(each, at); at += each.length; }
    return whole;
  };
  const bytes = (value) => join(head(2, value.length), value);
  const text = (value) => { const raw = new TextEncoder().encode(value); return join(head(3, raw.length), raw); };
  const array = (...items) => join(head(4, items.length), ...items);

  // Definite lengths only, as the wire has them; numbers beyond 2^53 become BigInt.
  function decode(data) {
    let at = 0;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    function count(info) {
      if (info < 24) return info;
      const width = 1 << (info - 24);
      if (info > 27 || at + width > data.length) throw new Error("not CBOR");
      const value = width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at) : width === 4 ? view.getUint32(at) : view.getBigUint64(at);
      at += width;
      return typeof value === "bigint" && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
    }
    function item(depth) {
      if (depth > 16 || at >= data.length) throw new Error("not CBOR");
      const first = data[at++], major = first >> 5, size = count(first & 31);
      switch (major) {
        case 0: return size;
        case 1: return typeof size === "bigint" ? -1n - size : -1 - size;
        case 2: case 3: {
          if (at + size > data.length) throw new Error("not CBOR");
          const part = data.subarray(at, at += size);
          return major === 2 ? part : new TextDecoder("utf-8", { fatal: true }).decode(part);
        }
        case 4: return Array.from({ length: Math.min(size, data.length) }, () => item(depth + 1));
        case 5: {
          const map = new Map();
          for (let i = 0; i < size; i++) map.set(item(depth + 1), item(depth + 1));
          return map;
        }
        case 7: if (size === 20) return false; if (size === 21) return true; if (size === 22) return null;
      }
      throw new Error("not CBOR that a document has");
    }
    const value = item(0);
    if (at !== data.length) throw new Error("bytes after the end");
    return value;
  }

  // Diagnostic notation (RFC 8949 section 8) with the labels' names.
  function show(value, labels, indent = "") {
    if (value instanceof Uint8Array) return "h'" + Array.from(value, (each) => each.toString(16).padStart(2, "0")).join("") + "'";
    if (value instanceof Map) {
      const lines = [...value].map(([key, each]) => `${indent}  ${labels && labels[key] || JSON.stringify(key)}: ${show(each, null, indent + "  ")}`);
      return `{\n${lines.join("\n")}\n${indent}}`;
    }
    if (Array.isArray(value)) return `[${value.map((each) => show(each, null, indent)).join(", ")}]`;
    return typeof value === "bigint" ? String(value) : JSON.stringify(value);
  }
  return { array, bytes, decode, head, join, show, text };
})();
