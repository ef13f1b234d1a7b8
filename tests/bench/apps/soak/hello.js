import { serve } from './proof.js';

export default serve(({ line, respond }) => respond(line));
