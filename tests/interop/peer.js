// One request by npm's `coap` package; prints the answer as JSON. Arguments: host, port, method, path, options as JSON.
const coap = require('coap')
const [host, port, method, pathname, options] = process.argv.slice(2)
const request = coap.request({ host, port: Number(port), method, pathname, ...JSON.parse(options) })
request.on('response', (answer) => {
  const told = { code: answer.code, bytes: answer.payload.length, options: answer.options.map((each) => each.name) }
  console.log(JSON.stringify(told))
  process.exit(0)
})
request.on('error', (error) => {
  console.log(JSON.stringify({ error: String(error) }))
  process.exit(0)
})
setTimeout(() => { console.log(JSON.stringify({ error: 'no answer' })); process.exit(0) }, 3000)
if (method === 'POST') request.write(Buffer.alloc(200))
request.end()
