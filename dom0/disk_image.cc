#include "dom0/disk_image.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "vdev/ext/block.h"

namespace transom {

Result<DiskImage> DiskImage::open(const DrivePlan& plan) {
  const auto refuse = [&](const std::string& why) {
    return error(fmt::format("{}: {}: {}", plan.name, plan.path, why));
  };
  DiskImage image;
  image.plan_ = plan;
  const int mode = (plan.read_only ? O_RDONLY : O_RDWR) | (plan.cache == DiskCache::writethrough ? O_DSYNC : 0);
  // O_NONBLOCK: opening a FIFO by mistake must not hang.
  image.fd_ = FileDescriptor(::open(plan.path.c_str(), mode | O_CLOEXEC | O_NONBLOCK));
  if (!image.fd_) {
    const bool denied = errno == EACCES || errno == EROFS || errno == EPERM;
    return refuse(std::string(std::strerror(errno)) +
                  (denied && !plan.read_only ? "; set readonly = true for an image that may not be written" : ""));
  }
  // io_uring answers EAGAIN for ever on a non-blocking file of a file system without asynchronous reads.
  ::fcntl(image.fd_.get(), F_SETFL, ::fcntl(image.fd_.get(), F_GETFL) & ~O_NONBLOCK);
  struct stat st {};
  if (::fstat(image.fd_.get(), &st) != 0) return refuse(std::strerror(errno));
  if (S_ISDIR(st.st_mode)) return refuse("is a directory; a raw image file is needed");
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return refuse("is neither a file nor a block device");
  const off_t end = ::lseek(image.fd_.get(), 0, SEEK_END);
  if (end <= 0) return refuse("is empty");
  if (end % VDEV_SECTOR_BYTES != 0)
    return refuse(fmt::format("has {} bytes, not a multiple of {}: no raw image", end, VDEV_SECTOR_BYTES));
  image.bytes_ = static_cast<u64>(end);

  struct flock lock {};
  lock.l_type = plan.read_only ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(image.fd_.get(), F_OFD_SETLK, &lock) != 0)
    return refuse(errno == EAGAIN || errno == EACCES ? "is in use by another program that has locked it"
                                                     : fmt::format("cannot be locked: {}", std::strerror(errno)));
  return image;
}

} // namespace transom
