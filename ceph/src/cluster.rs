//! A connection to a cluster: `rados_t`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::blocking;
use crate::closer;
use crate::error::{Error, Kind, check};
use crate::observer::Observer;
use crate::pool::Pool;
use crate::sys;
use crate::text::{from_buffer, from_c, path_to_c, to_c};

/// How to reach a cluster, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The ceph.conf: monitors and defaults.
    pub conf: PathBuf,
    /// The user without `client.`, for instance `rockpool`.
    pub user: String,
    /// The file with its key; `None`: where ceph.conf says.
    pub keyring: Option<PathBuf>,
    /// How long to wait for a monitor when connecting (`client_mount_timeout`). Rounded up to seconds.
    pub connect_timeout: Duration,
    /// How long to wait for one answer of an OSD or monitor (`rados_osd_op_timeout`,
    /// `rados_mon_op_timeout`). Rounded up to seconds. A call may need several answers: a write fails after
    /// at most twice this time, a close after three times.
    pub op_timeout: Duration,
    /// Hears how calls do.
    pub observer: Observer,
}

/// One connection, shared by its clones; it costs some 13 threads, so a process needs one per cluster. It is
/// shut down in the background when the last clone, pool and image on it are gone.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<ClusterInner>,
}

#[derive(Debug)]
struct ClusterInner {
    raw: RawCluster,
    fsid: String,
    addrs: String,
    user: String,
    op_timeout: Duration,
    observer: Observer,
}

/// An owned `rados_t`. Not shut down by drop, see `closer`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCluster(sys::rados_t);

// SAFETY: "any function in librados may be used" on a connected handle (librados.h, rados_connect), from any
// thread: RadosClient locks its own state. The configuration, which is not locked that way, is only written
// before connecting, when one thread owns the handle.
unsafe impl Send for RawCluster {}
// SAFETY: as above.
unsafe impl Sync for RawCluster {}

impl RawCluster {
    /// Blocks until the connection is gone. Never on a thread of librados, which this waits for.
    pub(crate) fn shut_down(self) {
        // SAFETY: called once, by the closer or by a failed connect, when no user of the handle is left. It
        // frees a handle that never connected, too.
        unsafe { sys::rados_shutdown(self.0) }
    }
}

impl Drop for ClusterInner {
    fn drop(&mut self) {
        closer::shut_down(self.raw);
    }
}

impl Cluster {
    /// Connects, within the connect timeout.
    ///
    /// Errors: [`Kind::NotFound`] for a missing conf or keyring file, [`Kind::Denied`] for a wrong key or
    /// user, [`Kind::TimedOut`] when no monitor answers.
    pub async fn connect(config: &ClusterConfig) -> Result<Cluster, Error> {
        let config = config.clone();
        let (observer, user) = (config.observer.clone(), format!("client.{}", config.user));
        observer.watch("rados_connect", blocking::run("rados_connect", &user, move || connect(&config))).await
    }

    /// The cluster's id.
    pub fn fsid(&self) -> &str {
        &self.inner.fsid
    }

    /// The user without `client.`.
    pub fn user(&self) -> &str {
        &self.inner.user
    }

    /// This client's own address as the OSDs see it, in the form `ceph osd blocklist add` takes
    /// (`127.0.0.1:0/123`). Empty when librados could not tell.
    pub fn addrs(&self) -> &str {
        &self.inner.addrs
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.inner.observer
    }

    /// How long one answer may take; see [`ClusterConfig::op_timeout`].
    pub(crate) fn op_timeout(&self) -> Duration {
        self.inner.op_timeout
    }

    /// True for clones of the same connection.
    pub fn is_same(&self, other: &Cluster) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Sends a command to the monitors, as the JSON that `ceph` makes of its arguments, for instance
    /// `{"prefix":"df","format":"json"}`; returns the output.
    ///
    /// Errors: [`Kind::Denied`] without the caps, [`Kind::InvalidArgument`] for an unknown command.
    pub async fn mon_command(&self, command_json: &str) -> Result<Vec<u8>, Error> {
        let command = to_c(command_json, "rados_mon_command")?;
        let (cluster, object) = (self.clone(), command_json.to_owned());
        let call = blocking::run("rados_mon_command", command_json, move || {
            let mut parts = [command.as_ptr()];
            let (mut output, mut output_length) = (std::ptr::null_mut(), 0);
            let (mut status, mut status_length) = (std::ptr::null_mut(), 0);
            // SAFETY: a connected handle; all pointers live for the call, and the outputs become ours.
            let value = unsafe {
                sys::rados_mon_command(
                    cluster.raw(),
                    parts.as_mut_ptr(),
                    parts.len(),
                    std::ptr::null(),
                    0,
                    &mut output,
                    &mut output_length,
                    &mut status,
                    &mut status_length,
                )
            };
            // SAFETY: librados filled both pairs, or left them null and 0.
            let (output, status) = unsafe { (take_buffer(output, output_length), take_buffer(status, status_length)) };
            match check(value, "rados_mon_command", &object) {
                Ok(_) => Ok(output),
                Err(error) => Err(error.with_detail(String::from_utf8_lossy(&status).into_owned())),
            }
        });
        self.observer().watch("rados_mon_command", call).await
    }

    /// The value of a configuration option as this client sees it, for instance `rbd_default_features`;
    /// `None` if this release has no such option.
    pub async fn config_option(&self, name: &str) -> Result<Option<String>, Error> {
        let option = to_c(name, "rados_conf_get")?;
        let (cluster, object) = (self.clone(), name.to_owned());
        blocking::run("rados_conf_get", name, move || {
            let mut buffer = vec![0_u8; 4096];
            // SAFETY: a live handle, a C string, and a buffer of the length given.
            let value = unsafe {
                sys::rados_conf_get(cluster.raw(), option.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
            };
            match check(value, "rados_conf_get", &object) {
                Ok(_) => Ok(Some(from_buffer(&buffer))),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Opens a pool. Errors: [`Kind::NotFound`] if there is none of this name. Whether the user may read or
    /// write it shows only when it does.
    pub async fn pool(&self, name: &str) -> Result<Pool, Error> {
        let cluster = self.clone();
        let pool = name.to_owned();
        let call = blocking::run("rados_ioctx_create", name, move || Pool::from_name(cluster, pool));
        self.observer().watch("rados_ioctx_create", call).await
    }

    pub(crate) fn raw(&self) -> sys::rados_t {
        self.inner.raw.0
    }
}

fn connect(config: &ClusterConfig) -> Result<Cluster, Error> {
    closer::start()?;
    // librados says EACCES or nothing useful for missing files, so say it here.
    require_file(&config.conf, "ceph.conf")?;
    if let Some(keyring) = &config.keyring {
        require_file(keyring, "keyring")?;
    }
    let user = format!("client.{}", config.user);
    let name = to_c(&user, "rados_create2")?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: the out pointer and both C strings live for the call.
    let value = unsafe { sys::rados_create2(&mut raw, c"ceph".as_ptr(), name.as_ptr(), 0) };
    check(value, "rados_create2", &user)?;
    let raw = RawCluster(raw);
    match configure(raw, config).and_then(|()| begin_session(raw, &user)) {
        Ok(fsid) => {
            let inner = ClusterInner {
                raw,
                fsid,
                addrs: own_addrs(raw),
                user: config.user.clone(),
                op_timeout: config.op_timeout,
                observer: config.observer.clone(),
            };
            Ok(Cluster { inner: Arc::new(inner) })
        }
        Err(error) => {
            raw.shut_down();
            Err(error)
        }
    }
}

fn require_file(path: &std::path::Path, what: &str) -> Result<(), Error> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Err(Error::new("open", path.display().to_string(), errno)
                .with_detail(format!("the {what} is not readable")))
        }
    }
}

fn configure(raw: RawCluster, config: &ClusterConfig) -> Result<(), Error> {
    let conf = path_to_c(&config.conf, "rados_conf_read_file")?;
    // SAFETY: a fresh handle of this thread and a C string.
    let value = unsafe { sys::rados_conf_read_file(raw.0, conf.as_ptr()) };
    check(value, "rados_conf_read_file", &config.conf.display().to_string())?;

    if let Some(keyring) = &config.keyring {
        set_option(raw, "keyring", &keyring.display().to_string())?;
    }
    let operation = whole_seconds(config.op_timeout);
    set_option(raw, "client_mount_timeout", &whole_seconds(config.connect_timeout))?;
    set_option(raw, "rados_osd_op_timeout", &operation)?;
    set_option(raw, "rados_mon_op_timeout", &operation)?;
    // Our data is written once and in big pieces; a cache only costs a copy and a place for errors to hide.
    set_option(raw, "rbd_cache", "false")?;
    // Buffers of a write belong to its operation and never change: librbd need not copy them, which saves a
    // sixth of a gigabyte's CPU time and a third of an upload's memory. The price (measured with librbd
    // 16.2.15): a write that fails before it reaches the objects, by a blocklisted client for instance, never
    // completes, because the completion waits for the buffers and they for the completion. `io` sees to that.
    set_option(raw, "rbd_disable_zero_copy_writes", "false")
}

/// Ceph takes whole seconds here, and 0 means "wait for ever".
fn whole_seconds(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    seconds.max(1).to_string()
}

fn set_option(raw: RawCluster, name: &str, value: &str) -> Result<(), Error> {
    let (option, text) = (to_c(name, "rados_conf_set")?, to_c(value, "rados_conf_set")?);
    // SAFETY: a handle that is not connected yet and that only this thread knows.
    let result = unsafe { sys::rados_conf_set(raw.0, option.as_ptr(), text.as_ptr()) };
    check(result, "rados_conf_set", name).map(|_| ())
}

/// Connects and asks for the fsid.
fn begin_session(raw: RawCluster, user: &str) -> Result<String, Error> {
    // SAFETY: a configured handle of this thread.
    check(unsafe { sys::rados_connect(raw.0) }, "rados_connect", user)?;
    let mut fsid = [0_u8; 64];
    // SAFETY: connected, and the buffer has the length given.
    let value = unsafe { sys::rados_cluster_fsid(raw.0, fsid.as_mut_ptr().cast(), fsid.len()) };
    check(value, "rados_cluster_fsid", user)?;
    Ok(from_buffer(&fsid))
}

fn own_addrs(raw: RawCluster) -> String {
    let mut addrs = std::ptr::null_mut();
    // SAFETY: connected; the out pointer becomes ours on success.
    let value = unsafe { sys::rados_getaddrs(raw.0, &mut addrs) };
    if value < 0 || addrs.is_null() {
        return String::new();
    }
    // SAFETY: a C string made with strdup.
    let text = unsafe { from_c(addrs) };
    // SAFETY: strdup's memory is freed by free (as librados' own Python binding does), once.
    unsafe { libc::free(addrs.cast()) };
    text
}

/// Copies and frees a buffer of librados.
///
/// # Safety
/// `buffer` is null or has `length` bytes, comes from librados, and is not used afterwards.
unsafe fn take_buffer(buffer: *mut libc::c_char, length: usize) -> Vec<u8> {
    if buffer.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller promises length and liveness.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) }.to_vec();
    // SAFETY: the caller promises it comes from librados and is ours.
    unsafe { sys::rados_buffer_free(buffer) };
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::whole_seconds;

    #[test]
    fn a_timeout_is_never_endless() {
        assert_eq!(whole_seconds(Duration::ZERO), "1");
        assert_eq!(whole_seconds(Duration::from_millis(1500)), "2");
        assert_eq!(whole_seconds(Duration::from_secs(15)), "15");
    }
}
