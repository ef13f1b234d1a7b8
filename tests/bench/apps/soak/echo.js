// Sends back what arrives while it arrives.
import { serve } from './proof.js';

export default serve(({ request, respond }) => respond(request.body));
