//! Disk image formats: what a file is, and what disk it holds.

pub mod disk;
pub mod inspect;
pub mod unpack;

use std::fmt;

/// A format of disk images, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk and nothing else.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// QEMU's enhanced disk.
    Qed,
    /// Microsoft's virtual hard disk, also called VPC.
    Vhd,
    /// Its successor.
    Vhdx,
    /// VMware's virtual machine disk.
    Vmdk,
    /// VirtualBox's disk image.
    Vdi,
    /// An ISO 9660 file system.
    Iso,
    /// A disk with a partition table (GPT or MBR): raw bytes.
    Gpt,
    /// An encrypted disk.
    Luks,
}

impl Format {
    /// The name by which `disk_format` calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Gpt => "gpt",
            Self::Luks => "luks",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
