// Shows what a document's bytes say, and signs them: COSE_Sign1 (RFC 9052 section 4.4), EdDSA, the key id unprotected.
"use strict";
(async () => {
  const box = document.getElementById("signing"), form = document.getElementById("sign-form"), problem = document.getElementById("sign-problem");
  const unbase64 = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const payload = unbase64(box.dataset.payload), aad = unbase64(box.dataset.aad);
  const wrong = (text) => { problem.hidden = false; problem.textContent = text; };
  document.getElementById("decoded").textContent = cbor.show(cbor.decode(payload), JSON.parse(box.dataset.labels));
  if (!await keys.supported()) { wrong(box.dataset.unsupported); form.hidden = true; return; }
  const held = await keys.list(), select = form.elements.key;
  for (const each of held) select.add(new Option(`${each.name} (${each.role})`, each.name));
  if (!held.length) { wrong(box.dataset.noKey); form.querySelector("button").disabled = true; select.hidden = true; }

  async function signed(entry) {
    const secured = Uint8Array.from([0xa1, 0x01, 0x27]); // {1: -8}, EdDSA
    const message = cbor.array(cbor.text("Signature1"), cbor.bytes(secured), cbor.bytes(aad), cbor.bytes(payload));
    const signature = await keys.sign(entry, message);
    const unsecured = cbor.join(cbor.head(5, 1), [0x04], cbor.bytes(await keys.identity(entry))); // {4: key id}
    return cbor.join([0xd2], cbor.array(cbor.bytes(secured), unsecured, cbor.bytes(payload), cbor.bytes(signature)));
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    const button = form.querySelector("button");
    button.setAttribute("aria-busy", "true");
    try {
      const body = await signed(held.find((each) => each.name === select.value));
      const method = box.dataset.put === "/v1/documents" ? "PUT" : "POST";
      const answer = await fetch(box.dataset.put, { method, body, headers: { "Content-Type": "application/cose", "X-Digitruck-Request": "1" } });
      if (!answer.ok) throw new Error((await answer.json()).detail || answer.statusText);
      document.getElementById("told").textContent = box.dataset.doneText;
      window.location.href = box.dataset.done;
    } catch (error) {
      wrong(error.message);
    } finally {
      button.removeAttribute("aria-busy");
    }
  });
})();
