// Declarations of the librados and librbd functions that this crate calls, made by bindgen 0.73.2 from
// the headers of Debian 12 (librados-dev, librbd-dev 16.2.15). They fit every later release too: up to
// 20.2 the C API only gained functions. Do not edit; this command (with bindgen-cli and libclang-14-dev
// installed, from the folder `ceph`) makes the file again, these comment lines apart:
//
//   bindgen /usr/include/rbd/librbd.h -o src/sys.rs \
//     --merge-extern-blocks --no-doc-comments --no-layout-tests --no-prepend-enum-name \
//     --rust-edition 2024 --rust-target 1.90 --disable-header-comment \
//     --blocklist-type '__time_t|time_t|timespec|iovec|s?size_t|__s?size_t|__u?int(8|64)_t' \
//     --raw-line 'use libc::{iovec, time_t, timespec};' \
//     --allowlist-var 'RBD_(SNAP_CREATE_SKIP_QUIESCE|IMAGE_OPTION_.*)' \
//     --allowlist-function 'rados_(create2|shutdown|conf_read_file|conf_set|conf_get|connect|cluster_fsid|mon_command|buffer_free|getaddrs)' \
//     --allowlist-function 'rados_(ioctx_create|ioctx_destroy|ioctx_get_id|ioctx_pool_stat|set_pool_full_try|stat|exec|list_lockers|break_lock|blocklist_add|create_write_op|write_op_create|write_op_operate|release_write_op|get_instance_id|wait_for_latest_osdmap)' \
//     --allowlist-function 'rbd_(image_options_(create|destroy|set_string|set_uint64)|create4|clone3|remove|rename)' \
//     --allowlist-function 'rbd_(list2|image_spec_list_cleanup|list_children3|linked_image_spec_list_cleanup)' \
//     --allowlist-function 'rbd_(open|open_read_only|open_by_id|open_by_id_read_only|close|aio_close|resize2|stat|get_size|flatten_with_progress)' \
//     --allowlist-function 'rbd_get_(features|id|block_name_prefix|data_pool_id|parent|create_timestamp)|rbd_(linked_image|snap)_spec_cleanup' \
//     --allowlist-function 'rbd_snap_(create2|remove|protect|unprotect|is_protected|list|list_end|get_namespace_type)' \
//     --allowlist-function 'rbd_trash_(move|list|list_cleanup|remove|restore)' \
//     --allowlist-function 'rbd_aio_(writev|read|discard|write_zeroes|flush|create_completion|get_return_value|release)' \
//     --allowlist-function 'rbd_metadata_(get|set|remove|list)|rbd_diff_iterate2|rbd_watchers_list(_cleanup)?'

use libc::{iovec, time_t, timespec};

pub const RBD_SNAP_CREATE_SKIP_QUIESCE: u32 = 1;
pub type rados_t = *mut ::std::os::raw::c_void;
pub type rados_ioctx_t = *mut ::std::os::raw::c_void;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rados_pool_stat_t {
    pub num_bytes: u64,
    pub num_kb: u64,
    pub num_objects: u64,
    pub num_object_clones: u64,
    pub num_object_copies: u64,
    pub num_objects_missing_on_primary: u64,
    pub num_objects_unfound: u64,
    pub num_objects_degraded: u64,
    pub num_rd: u64,
    pub num_rd_kb: u64,
    pub num_wr: u64,
    pub num_wr_kb: u64,
    pub num_user_bytes: u64,
    pub compressed_bytes_orig: u64,
    pub compressed_bytes: u64,
    pub compressed_bytes_alloc: u64,
}
pub type rados_write_op_t = *mut ::std::os::raw::c_void;
pub type rbd_image_t = *mut ::std::os::raw::c_void;
pub type rbd_image_options_t = *mut ::std::os::raw::c_void;
pub type rbd_completion_t = *mut ::std::os::raw::c_void;
pub type rbd_callback_t =
    ::std::option::Option<unsafe extern "C" fn(cb: rbd_completion_t, arg: *mut ::std::os::raw::c_void)>;
pub type librbd_progress_fn_t = ::std::option::Option<
    unsafe extern "C" fn(offset: u64, total: u64, ptr: *mut ::std::os::raw::c_void) -> ::std::os::raw::c_int,
>;
pub const RBD_SNAP_NAMESPACE_TYPE_USER: rbd_snap_namespace_type_t = 0;
pub const RBD_SNAP_NAMESPACE_TYPE_GROUP: rbd_snap_namespace_type_t = 1;
pub const RBD_SNAP_NAMESPACE_TYPE_TRASH: rbd_snap_namespace_type_t = 2;
pub const RBD_SNAP_NAMESPACE_TYPE_MIRROR: rbd_snap_namespace_type_t = 3;
pub type rbd_snap_namespace_type_t = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_image_spec_t {
    pub id: *mut ::std::os::raw::c_char,
    pub name: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_linked_image_spec_t {
    pub pool_id: i64,
    pub pool_name: *mut ::std::os::raw::c_char,
    pub pool_namespace: *mut ::std::os::raw::c_char,
    pub image_id: *mut ::std::os::raw::c_char,
    pub image_name: *mut ::std::os::raw::c_char,
    pub trash: bool,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_snap_spec_t {
    pub id: u64,
    pub namespace_type: rbd_snap_namespace_type_t,
    pub name: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_snap_info_t {
    pub id: u64,
    pub size: u64,
    pub name: *const ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_image_info_t {
    pub size: u64,
    pub obj_size: u64,
    pub num_objs: u64,
    pub order: ::std::os::raw::c_int,
    pub block_name_prefix: [::std::os::raw::c_char; 24usize],
    pub parent_pool: i64,
    pub parent_name: [::std::os::raw::c_char; 96usize],
}
pub const RBD_IMAGE_OPTION_FORMAT: _bindgen_ty_15 = 0;
pub const RBD_IMAGE_OPTION_FEATURES: _bindgen_ty_15 = 1;
pub const RBD_IMAGE_OPTION_ORDER: _bindgen_ty_15 = 2;
pub const RBD_IMAGE_OPTION_STRIPE_UNIT: _bindgen_ty_15 = 3;
pub const RBD_IMAGE_OPTION_STRIPE_COUNT: _bindgen_ty_15 = 4;
pub const RBD_IMAGE_OPTION_JOURNAL_ORDER: _bindgen_ty_15 = 5;
pub const RBD_IMAGE_OPTION_JOURNAL_SPLAY_WIDTH: _bindgen_ty_15 = 6;
pub const RBD_IMAGE_OPTION_JOURNAL_POOL: _bindgen_ty_15 = 7;
pub const RBD_IMAGE_OPTION_FEATURES_SET: _bindgen_ty_15 = 8;
pub const RBD_IMAGE_OPTION_FEATURES_CLEAR: _bindgen_ty_15 = 9;
pub const RBD_IMAGE_OPTION_DATA_POOL: _bindgen_ty_15 = 10;
pub const RBD_IMAGE_OPTION_FLATTEN: _bindgen_ty_15 = 11;
pub const RBD_IMAGE_OPTION_CLONE_FORMAT: _bindgen_ty_15 = 12;
pub const RBD_IMAGE_OPTION_MIRROR_IMAGE_MODE: _bindgen_ty_15 = 13;
pub type _bindgen_ty_15 = ::std::os::raw::c_uint;
pub const RBD_TRASH_IMAGE_SOURCE_USER: rbd_trash_image_source_t = 0;
pub const RBD_TRASH_IMAGE_SOURCE_MIRRORING: rbd_trash_image_source_t = 1;
pub const RBD_TRASH_IMAGE_SOURCE_MIGRATION: rbd_trash_image_source_t = 2;
pub const RBD_TRASH_IMAGE_SOURCE_REMOVING: rbd_trash_image_source_t = 3;
pub const RBD_TRASH_IMAGE_SOURCE_USER_PARENT: rbd_trash_image_source_t = 4;
pub type rbd_trash_image_source_t = ::std::os::raw::c_uint;
#[repr(C)]
pub struct rbd_trash_image_info_t {
    pub id: *mut ::std::os::raw::c_char,
    pub name: *mut ::std::os::raw::c_char,
    pub source: rbd_trash_image_source_t,
    pub deletion_time: time_t,
    pub deferment_end_time: time_t,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_image_watcher_t {
    pub addr: *mut ::std::os::raw::c_char,
    pub id: i64,
    pub cookie: u64,
}
unsafe extern "C" {
    pub fn rados_create2(
        pcluster: *mut rados_t,
        clustername: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        flags: u64,
    ) -> ::std::os::raw::c_int;
    pub fn rados_connect(cluster: rados_t) -> ::std::os::raw::c_int;
    pub fn rados_shutdown(cluster: rados_t);
    pub fn rados_conf_read_file(cluster: rados_t, path: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rados_conf_set(
        cluster: rados_t,
        option: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_conf_get(
        cluster: rados_t,
        option: *const ::std::os::raw::c_char,
        buf: *mut ::std::os::raw::c_char,
        len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_cluster_fsid(cluster: rados_t, buf: *mut ::std::os::raw::c_char, len: usize) -> ::std::os::raw::c_int;
    pub fn rados_wait_for_latest_osdmap(cluster: rados_t) -> ::std::os::raw::c_int;
    pub fn rados_get_instance_id(cluster: rados_t) -> u64;
    pub fn rados_ioctx_create(
        cluster: rados_t,
        pool_name: *const ::std::os::raw::c_char,
        ioctx: *mut rados_ioctx_t,
    ) -> ::std::os::raw::c_int;
    pub fn rados_ioctx_destroy(io: rados_ioctx_t);
    pub fn rados_ioctx_pool_stat(io: rados_ioctx_t, stats: *mut rados_pool_stat_t) -> ::std::os::raw::c_int;
    pub fn rados_ioctx_get_id(io: rados_ioctx_t) -> i64;
    pub fn rados_stat(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        psize: *mut u64,
        pmtime: *mut time_t,
    ) -> ::std::os::raw::c_int;
    pub fn rados_exec(
        io: rados_ioctx_t,
        oid: *const ::std::os::raw::c_char,
        cls: *const ::std::os::raw::c_char,
        method: *const ::std::os::raw::c_char,
        in_buf: *const ::std::os::raw::c_char,
        in_len: usize,
        buf: *mut ::std::os::raw::c_char,
        out_len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_create_write_op() -> rados_write_op_t;
    pub fn rados_release_write_op(write_op: rados_write_op_t);
    pub fn rados_write_op_create(
        write_op: rados_write_op_t,
        exclusive: ::std::os::raw::c_int,
        category: *const ::std::os::raw::c_char,
    );
    pub fn rados_write_op_operate(
        write_op: rados_write_op_t,
        io: rados_ioctx_t,
        oid: *const ::std::os::raw::c_char,
        mtime: *mut time_t,
        flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rados_list_lockers(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        exclusive: *mut ::std::os::raw::c_int,
        tag: *mut ::std::os::raw::c_char,
        tag_len: *mut usize,
        clients: *mut ::std::os::raw::c_char,
        clients_len: *mut usize,
        cookies: *mut ::std::os::raw::c_char,
        cookies_len: *mut usize,
        addrs: *mut ::std::os::raw::c_char,
        addrs_len: *mut usize,
    ) -> isize;
    pub fn rados_break_lock(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        client: *const ::std::os::raw::c_char,
        cookie: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_blocklist_add(
        cluster: rados_t,
        client_address: *mut ::std::os::raw::c_char,
        expire_seconds: u32,
    ) -> ::std::os::raw::c_int;
    pub fn rados_getaddrs(cluster: rados_t, addrs: *mut *mut ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rados_set_pool_full_try(io: rados_ioctx_t);
    pub fn rados_mon_command(
        cluster: rados_t,
        cmd: *mut *const ::std::os::raw::c_char,
        cmdlen: usize,
        inbuf: *const ::std::os::raw::c_char,
        inbuflen: usize,
        outbuf: *mut *mut ::std::os::raw::c_char,
        outbuflen: *mut usize,
        outs: *mut *mut ::std::os::raw::c_char,
        outslen: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_buffer_free(buf: *mut ::std::os::raw::c_char);
    pub fn rbd_image_options_create(opts: *mut rbd_image_options_t);
    pub fn rbd_image_options_destroy(opts: rbd_image_options_t);
    pub fn rbd_image_options_set_string(
        opts: rbd_image_options_t,
        optname: ::std::os::raw::c_int,
        optval: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_image_options_set_uint64(
        opts: rbd_image_options_t,
        optname: ::std::os::raw::c_int,
        optval: u64,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_image_spec_list_cleanup(images: *mut rbd_image_spec_t, num_images: usize);
    pub fn rbd_linked_image_spec_cleanup(image: *mut rbd_linked_image_spec_t);
    pub fn rbd_snap_spec_cleanup(snap: *mut rbd_snap_spec_t);
    pub fn rbd_linked_image_spec_list_cleanup(images: *mut rbd_linked_image_spec_t, num_images: usize);
    pub fn rbd_list2(io: rados_ioctx_t, images: *mut rbd_image_spec_t, max_images: *mut usize)
    -> ::std::os::raw::c_int;
    pub fn rbd_create4(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        size: u64,
        opts: rbd_image_options_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_clone3(
        p_ioctx: rados_ioctx_t,
        p_name: *const ::std::os::raw::c_char,
        p_snapname: *const ::std::os::raw::c_char,
        c_ioctx: rados_ioctx_t,
        c_name: *const ::std::os::raw::c_char,
        c_opts: rbd_image_options_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_remove(io: rados_ioctx_t, name: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rbd_rename(
        src_io_ctx: rados_ioctx_t,
        srcname: *const ::std::os::raw::c_char,
        destname: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_trash_move(io: rados_ioctx_t, name: *const ::std::os::raw::c_char, delay: u64) -> ::std::os::raw::c_int;
    pub fn rbd_trash_list(
        io: rados_ioctx_t,
        trash_entries: *mut rbd_trash_image_info_t,
        num_entries: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_trash_list_cleanup(trash_entries: *mut rbd_trash_image_info_t, num_entries: usize);
    pub fn rbd_trash_remove(io: rados_ioctx_t, id: *const ::std::os::raw::c_char, force: bool)
    -> ::std::os::raw::c_int;
    pub fn rbd_trash_restore(
        io: rados_ioctx_t,
        id: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open_by_id(
        io: rados_ioctx_t,
        id: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open_read_only(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open_by_id_read_only(
        io: rados_ioctx_t,
        id: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_close(image: rbd_image_t) -> ::std::os::raw::c_int;
    pub fn rbd_aio_close(image: rbd_image_t, c: rbd_completion_t) -> ::std::os::raw::c_int;
    pub fn rbd_resize2(
        image: rbd_image_t,
        size: u64,
        allow_shrink: bool,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_stat(image: rbd_image_t, info: *mut rbd_image_info_t, infosize: usize) -> ::std::os::raw::c_int;
    pub fn rbd_get_size(image: rbd_image_t, size: *mut u64) -> ::std::os::raw::c_int;
    pub fn rbd_get_features(image: rbd_image_t, features: *mut u64) -> ::std::os::raw::c_int;
    pub fn rbd_get_id(image: rbd_image_t, id: *mut ::std::os::raw::c_char, id_len: usize) -> ::std::os::raw::c_int;
    pub fn rbd_get_block_name_prefix(
        image: rbd_image_t,
        prefix: *mut ::std::os::raw::c_char,
        prefix_len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_get_data_pool_id(image: rbd_image_t) -> i64;
    pub fn rbd_get_create_timestamp(image: rbd_image_t, timestamp: *mut timespec) -> ::std::os::raw::c_int;
    pub fn rbd_get_parent(
        image: rbd_image_t,
        parent_image: *mut rbd_linked_image_spec_t,
        parent_snap: *mut rbd_snap_spec_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_flatten_with_progress(
        image: rbd_image_t,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_list(
        image: rbd_image_t,
        snaps: *mut rbd_snap_info_t,
        max_snaps: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_list_end(snaps: *mut rbd_snap_info_t);
    pub fn rbd_snap_create2(
        image: rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
        flags: u32,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_remove(image: rbd_image_t, snapname: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rbd_snap_protect(image: rbd_image_t, snap_name: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rbd_snap_unprotect(image: rbd_image_t, snap_name: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rbd_snap_is_protected(
        image: rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
        is_protected: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_get_namespace_type(
        image: rbd_image_t,
        snap_id: u64,
        namespace_type: *mut rbd_snap_namespace_type_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_list_children3(
        image: rbd_image_t,
        images: *mut rbd_linked_image_spec_t,
        max_images: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_diff_iterate2(
        image: rbd_image_t,
        fromsnapname: *const ::std::os::raw::c_char,
        ofs: u64,
        len: u64,
        include_parent: u8,
        whole_object: u8,
        cb: ::std::option::Option<
            unsafe extern "C" fn(
                arg1: u64,
                arg2: usize,
                arg3: ::std::os::raw::c_int,
                arg4: *mut ::std::os::raw::c_void,
            ) -> ::std::os::raw::c_int,
        >,
        arg: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_writev(
        image: rbd_image_t,
        iov: *const iovec,
        iovcnt: ::std::os::raw::c_int,
        off: u64,
        c: rbd_completion_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_read(
        image: rbd_image_t,
        off: u64,
        len: usize,
        buf: *mut ::std::os::raw::c_char,
        c: rbd_completion_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_discard(image: rbd_image_t, off: u64, len: u64, c: rbd_completion_t) -> ::std::os::raw::c_int;
    pub fn rbd_aio_write_zeroes(
        image: rbd_image_t,
        off: u64,
        len: usize,
        c: rbd_completion_t,
        zero_flags: ::std::os::raw::c_int,
        op_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_create_completion(
        cb_arg: *mut ::std::os::raw::c_void,
        complete_cb: rbd_callback_t,
        c: *mut rbd_completion_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_get_return_value(c: rbd_completion_t) -> isize;
    pub fn rbd_aio_release(c: rbd_completion_t);
    pub fn rbd_aio_flush(image: rbd_image_t, c: rbd_completion_t) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_get(
        image: rbd_image_t,
        key: *const ::std::os::raw::c_char,
        value: *mut ::std::os::raw::c_char,
        val_len: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_set(
        image: rbd_image_t,
        key: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_remove(image: rbd_image_t, key: *const ::std::os::raw::c_char) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_list(
        image: rbd_image_t,
        start: *const ::std::os::raw::c_char,
        max: u64,
        keys: *mut ::std::os::raw::c_char,
        key_len: *mut usize,
        values: *mut ::std::os::raw::c_char,
        vals_len: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_watchers_list(
        image: rbd_image_t,
        watchers: *mut rbd_image_watcher_t,
        max_watchers: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_watchers_list_cleanup(watchers: *mut rbd_image_watcher_t, num_watchers: usize);
}
