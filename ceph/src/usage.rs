//! How full a pool is.

use serde_json::Value;

use crate::error::{Error, Kind, check};
use crate::pool::Pool;
use crate::sys;

/// What a pool holds and may still take.
///
/// A user whose caps do not allow the monitor command `df` gets the first three only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Bytes that clients stored, before replication.
    pub stored_bytes: u64,
    /// Bytes on disk, all copies.
    pub used_bytes: u64,
    /// RADOS objects.
    pub objects: u64,
    /// Bytes that clients may still store before the first OSD is full (the quota not counted).
    pub max_available_bytes: Option<u64>,
    /// The pool's quota; `None` if it has none. The OSDs enforce it seconds late.
    pub quota_bytes: Option<u64>,
}

pub(crate) async fn of(pool: &Pool) -> Result<PoolUsage, Error> {
    let command = r#"{"prefix":"df","detail":"detail","format":"json"}"#;
    match pool.cluster().mon_command(command).await {
        Ok(report) => match parse(&report, pool.id()) {
            Some(usage) => Ok(usage),
            None => from_librados(pool).await,
        },
        Err(error) if error.kind() == Kind::Denied => from_librados(pool).await,
        Err(error) => Err(error),
    }
}

fn parse(report: &[u8], pool_id: i64) -> Option<PoolUsage> {
    let report: Value = serde_json::from_slice(report).ok()?;
    let pools = report["pools"].as_array()?;
    let stats = &pools.iter().find(|pool| pool["id"].as_i64() == Some(pool_id))?["stats"];
    Some(PoolUsage {
        stored_bytes: stats["stored"].as_u64()?,
        used_bytes: stats["bytes_used"].as_u64()?,
        objects: stats["objects"].as_u64()?,
        max_available_bytes: stats["max_avail"].as_u64(),
        // 0 is how Ceph says "none".
        quota_bytes: stats["quota_bytes"].as_u64().filter(|quota| *quota > 0),
    })
}

async fn from_librados(pool: &Pool) -> Result<PoolUsage, Error> {
    pool.call("rados_ioctx_pool_stat", "", |io, label| {
        // SAFETY: a structure of plain integers, for which zeros are valid.
        let mut stat: sys::rados_pool_stat_t = unsafe { std::mem::zeroed() };
        // SAFETY: a live io context and an out pointer for the call.
        let value = unsafe { sys::rados_ioctx_pool_stat(io, &mut stat) };
        check(value, "rados_ioctx_pool_stat", label)?;
        Ok(PoolUsage {
            stored_bytes: stat.num_user_bytes.max(stat.num_bytes),
            used_bytes: stat.num_kb << 10,
            objects: stat.num_objects,
            max_available_bytes: None,
            quota_bytes: None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::{PoolUsage, parse};

    #[test]
    fn reads_the_report_of_df() {
        let report = br#"{"stats":{},"pools":[
            {"name":"vms","id":3,"stats":{"stored":1,"objects":1,"bytes_used":1,"max_avail":1}},
            {"name":"images","id":2,"stats":{"stored":10,"objects":3,"kb_used":1,"bytes_used":30,
             "percent_used":0.1,"max_avail":70,"quota_objects":0,"quota_bytes":50}}]}"#;
        let usage = PoolUsage {
            stored_bytes: 10,
            used_bytes: 30,
            objects: 3,
            max_available_bytes: Some(70),
            quota_bytes: Some(50),
        };
        assert_eq!(parse(report, 2), Some(usage));
        assert_eq!(parse(report, 3).unwrap().quota_bytes, None);
        assert_eq!(parse(report, 9), None);
        assert_eq!(parse(b"{}", 2), None);
        assert_eq!(parse(b"not json", 2), None);
    }
}
