//! Files of the layer that run late are compiled once a process.

use isolet_runtime::web;

use crate::harness::{Instance, head, on_fresh_thread};

const HELLO: &str = "export default { fetch() { return new Response('hello'); } }";
const LATE: &str = "
    export default { fetch(request) {
      const { pathname } = new URL(request.url);
      const text = new Response(pathname).body.pipeThrough(new TextDecoderStream()).pipeThrough(new TextEncoderStream());
      return new Response(text);
    } }";

#[test]
fn instances_take_what_one_has_compiled() {
    on_fresh_thread(|| {
        Instance::new(HELLO)
            .enter(|_, scope| web::compile_lazy_files(scope))
            .expect("the files run");
        let before = web::lazy_code();
        assert!(before.files > 0, "{before:?}");

        let mut instance = Instance::new(LATE);
        let request = instance.begin(head("GET", "http://h/late", &[]), None);
        instance.run();
        assert_eq!(instance.answer(request).text(), "/late");
        let after = web::lazy_code();
        // URL, streams, what they need, and the two text streams.
        assert!(after.taken >= before.taken + 4, "{before:?} {after:?}");
        assert_eq!(after.refused, 0);
    });
}
