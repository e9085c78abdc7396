// An OpenID provider for the tests: npm's oidc-provider with two clients and its own development log-in pages.
// node provider.mjs MODULE REDIRECT_URI prints {"issuer": ...} once it listens, and ends when its standard input does.
import http from 'node:http';

const [, , module, redirectUri] = process.argv;
const { default: Provider } = await import(module);
const groups = { amina: ['drivers'], joseph: ['library', 'drivers'], visitor: [] };
const client = { redirect_uris: [redirectUri], response_types: ['code'], grant_types: ['authorization_code'] };

const server = http.createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: 'digitruck', client_secret: 'a secret of the tests', token_endpoint_auth_method: 'client_secret_post' },
    { ...client, client_id: 'public', token_endpoint_auth_method: 'none' },
  ],
  claims: { openid: ['sub'], email: ['email', 'groups'] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.org`, groups: groups[id] ?? [] }),
  }),
});
server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
