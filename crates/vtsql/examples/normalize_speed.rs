//! Prints what normalising, filling in and parsing cost per statement. Run with `--release`.

use std::hint::black_box;
use std::time::Instant;

fn main() {
    let statements = [
        "select 1",
        "SELECT c FROM sbtest1 WHERE id=5035",
        "select a, b, c, d from customer where customer_id = 1234 and email = 'alice@example.com'",
        "insert into corder(customer_id, sku, price, note) values (12, 'SKU-1001', 100, 'a note')",
        "select c from sbtest1 where id in (1,2,3,4,5,6,7,8,9,10)",
    ];
    for sql in statements {
        let n = vtsql::normalize(sql.as_bytes()).expect("valid");
        let vars: vtsql::BindVars = n.bind_vars.iter().cloned().collect();
        let template = vtsql::Template::new(n.sql.clone());
        let normalize = nanoseconds(|| drop(black_box(vtsql::normalize(black_box(sql.as_bytes())))));
        let bind = nanoseconds(|| drop(black_box(template.render(black_box(&vars)))));
        let parse = nanoseconds(|| drop(black_box(vtsql::parse(black_box(&n.sql)))));
        println!("normalize {normalize:6.0} ns  bind {bind:6.0} ns  parse {parse:6.0} ns  {sql}");
    }
}

/// Mean over a fifth of a second.
fn nanoseconds(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut count = 0u64;
    while start.elapsed().as_millis() < 200 {
        for _ in 0..256 {
            run();
        }
        count += 256;
    }
    start.elapsed().as_nanos() as f64 / count as f64
}
