// Asks another server, through the agent. That server knows who asks and checks it.
import { serve, sleep } from './proof.js';

export default serve(async ({ request, env, url, nonce, line, respond }) => {
  const headers = { 'x-tenant': env.NAME, 'x-secret': env.SECRET, 'x-nonce': nonce };
  const ask = (path, init) => fetch(env.UPSTREAM + path, { ...init, headers });
  switch (url.pathname) {
    case '/bytes':
    case '/tiny':
    case '/redirected': {
      const answer = await ask(url.pathname + url.search);
      return respond(answer.body, answer.status);
    }
    case '/sent': {
      const answer = await ask('/sum', { method: 'POST', body: request.body, duplex: 'half' });
      return respond(line + (await answer.text()), answer.status);
    }
    case '/cut':
      try {
        return respond(await (await ask('/cut')).text());
      } catch (error) {
        return respond(`${line}${error.name}`);
      }
    case '/unread': {
      const answers = await Promise.all([ask('/tiny?size=16000'), ask('/tiny?size=16000'), ask('/bytes?size=1048576')]);
      // Time for what nobody reads to arrive.
      await sleep(20);
      return respond(line + answers.map((answer) => answer.status).join());
    }
    case '/given-up': {
      const answer = await ask('/bytes?size=1048576');
      const { value } = await answer.body.getReader().read();
      return respond(`${line}${value.length > 0}`);
    }
    default:
      try {
        await fetch('http://127.0.0.1:1/');
        return respond('was let through');
      } catch (error) {
        return respond(`${line}${error.name} ${error.message.includes('is not allowed')}`);
      }
  }
});
