// Follows /counter for ever and prints each event; clients_spec.rb restarts the server meanwhile.
import { EventSource } from "eventsource";

const source = new EventSource(`${process.env.SERVER}/counter`);
source.addEventListener("message", (event) => console.log(event.lastEventId, event.data));
