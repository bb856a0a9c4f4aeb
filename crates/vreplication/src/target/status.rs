//! What a tablet's status page shows of its streams.

use std::fmt::Write;

use servenv::html_escape;

use super::Engine;

impl Engine {
    /// The engine's state and a table of its streams.
    pub fn status_html(&self) -> String {
        let mut out = format!("VReplication state: {}<br>\n", if self.is_open() { "Open" } else { "Closed" });
        out.push_str(
            "<table>\n<tr><th>Index</th><th>Workflow</th><th>Source</th><th>Source Tablet</th><th>State</th>\
             <th>Stop Position</th><th>Last Position</th><th>Seconds Behind Master</th><th>Counts</th>\
             <th>Last Message</th></tr>\n",
        );
        for stream in self.status() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td><b>All</b>: {}<br><b>Query</b>: {}<br><b>Transaction</b>: {}<br></td><td>{}</td></tr>",
                stream.id,
                html_escape(&stream.workflow),
                html_escape(&stream.source),
                html_escape(&stream.source_tablet),
                stream.state,
                html_escape(&stream.stop_position),
                html_escape(&stream.position),
                stream.seconds_behind,
                stream.queries + stream.transactions,
                stream.queries,
                stream.transactions,
                html_escape(&stream.message),
            );
        }
        out.push_str("</table>\n");
        out
    }
}
