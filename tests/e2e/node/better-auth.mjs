import { betterAuth } from "better-auth";
import { bearer, jwt } from "better-auth/plugins";

const { auth: documented } = await import(process.argv[2]);
const usual = betterAuth({ emailAndPassword: { enabled: true }, plugins: [jwt(), bearer()] });

async function signUp(auth, email) {
  const send = (path, init) => auth.handler(new Request(`${process.env.BETTER_AUTH_URL}/api/auth${path}`, init));
  const signedUp = await send("/sign-up/email", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name: "Alice", email, password: "correct horse" }),
  });
  const { token: session, user } = await signedUp.json();
  const cookie = signedUp.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
  const { token } = await (await send("/token", { headers: { Cookie: cookie } })).json();
  return { id: user.id, email: user.email, token, session, bearer: signedUp.headers.get("set-auth-token") };
}

const [documentedEmail, usualEmail] = process.argv.slice(3);
const users = { documented: await signUp(documented, documentedEmail), usual: await signUp(usual, usualEmail) };
console.log(JSON.stringify(users));
