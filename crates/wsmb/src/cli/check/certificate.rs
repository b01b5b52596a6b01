//! Checks the certificate of `[tls]`: its files, its time, and the days that are left.

use std::time::SystemTime;

use super::super::{build, output::count};
use super::report::Report;
use wsmb_config::Config;
use wsmb_server::TlsFiles;
use wsmb_tls::Files;

/// Reports the certificate. Files that cannot be used are an error only if a listener needs them. A certificate that is not valid now is a warning, because
/// the broker starts with it: the machine's clock may be wrong.
pub(super) fn check(config: &Config, report: &mut Report) {
    let Some(TlsFiles { certificate, key, client_ca }) = build::tls(config) else { return };
    let name = certificate.display().to_string();
    let pair = match (Files { certificate, key, client_ca }).read() {
        Ok(pair) => pair,
        Err(fault) if config.server.all_listeners().iter().any(|listener| listener.tls) => {
            return report.error(fault.to_string());
        }
        Err(fault) => return report.warning(fault.to_string()),
    };
    let now = SystemTime::now();
    let until = pair.facts.not_after.date();
    match u64::try_from(pair.facts.days_left(now)) {
        Ok(days) => report.fact("certificate", format!("{name}: valid until {until}, {} left", count(days, "day"))),
        Err(_) => report.fact("certificate", format!("{name}: valid until {until}")),
    }
    report.warnings(pair.time_fault(now).map(|fault| fault.to_string()));
    report.warnings(pair.expiry_warning(now));
}
