// A wrong vm.toml is refused with all its errors, each with its place, and nothing is started or touched.
#include <cstring>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "domain_run.hpp"
#include "vdev/manifest.h"
#include "vdev/vdev.h"

namespace transom::test {
namespace {

using testing::HasSubstr;

struct Wrong {
  std::string name;
  std::string text;              // of vm.toml
  std::string place;             // ":LINE:COLUMN: KEY: " behind the file's name
  std::vector<std::string> says; // what was found, what is accepted
};
void PrintTo(const Wrong& w, std::ostream* out) { *out << w.name; }

std::string many_devices() {
  std::string text;
  for (int i = 0; i < 12; ++i) {
    text += "[[device]]\nplugin = \"uart\"\nconfig = { \"base.regs\" = " + std::to_string(0x5000 + 8 * i) + " }\n";
  }
  return text;
}

const std::vector<Wrong>& table() {
  static const std::string GUEST = "[boot]\nfirmware = \"" + guest("halt") + "\"\n";
  static const std::vector<Wrong> WRONG = {
      {"UnknownKey", "memroy = \"64M\"\n", ":1:1: memroy: ", {"unknown key", "did you mean memory?", "cpus"}},
      {"UnknownKeyInATable",
       "[[disk]]\npath = \"good.raw\"\nsize = 3\n",
       ":3:1: disk.0.size: ",
       {"unknown key", "readonly"}},
      {"UnknownTable", "[bott]\nkernel = \"x\"\n", ":1:2: bott: ", {"unknown key", "did you mean boot?"}},
      {"NotToml", "name = \"x\"\nmemory = = 3\n", ":2:10: ", {"not TOML"}},
      {"KeyTwice", "cpus = 1\ncpus = 1\n", ":2:", {"not TOML", "cpus"}},
      {"WrongType", "memory = true\n", ":1:10: memory: ", {"found true", "a size is needed", "512M"}},
      {"TextForANumber", "cpus = \"one\"\n", ":1:8: cpus: ", {"found 'one' (a string)", "an integer from 1 to 8"}},
      {"NumberForText", "name = 7\n", ":1:8: name: ", {"found 7 (an integer)", "a string is needed"}},
      {"TextForABoolean",
       "[[disk]]\npath = \"good.raw\"\nreadonly = \"yes\"\n",
       ":3:12: disk.0.readonly: ",
       {"found 'yes'", "true, false"}},
      {"TableForAnArrayOfTables", "[disk]\npath = \"good.raw\"\n", ":1:1: disk: ", {"an array of tables", "[[disk]]"}},
      {"ArrayForATable", "[[boot]]\nkernel = \"x\"\n", ":1:1: boot: ", {"a table is needed", "[boot]"}},
      {"NoMemory", "memory = 0\n", ":1:10: memory: ", {"found 0 bytes", "2M to 64G"}},
      {"NegativeMemory", "memory = -1\n", ":1:10: memory: ", {"found -1", "a size is needed"}},
      {"MemoryOfNoUnit", "memory = \"512 megabytes\"\n", ":1:10: memory: ", {"found '512 megabytes'", "K, M, G"}},
      {"MemoryBeyondEverything", "memory = \"99999999999999999999G\"\n", ":1:10: memory: ", {"a size is needed"}},
      {"MemoryBeyondTheHost", "memory = \"64G\"\n", ":1:10: memory: ", {"65536 MiB are asked for", "available"}},
      {"MemoryOfOddSize", "memory = 100000000\n", ":1:10: memory: ", {"steps of 64K"}},
      {"UnknownWord",
       "cpu = \"sfot\"\n",
       ":1:7: cpu: ",
       {"found \"sfot\"", "accepted: auto, kvm, kvm:split, soft", "did you mean soft?"}},
      {"NotInThisVersion",
       "timer_mode = \"drop\"\n",
       ":1:14: timer_mode: ",
       {"not in this version of Transom yet", "accepted: catch-up"}},
      {"CodeCacheTooSmall", "code_cache = \"1M\"\n", ":1:14: code_cache: ", {"found 1048576 bytes", "4M to 512M"}},
      {"DeviceNotInThisVersion", "[[nic]]\nas = \"e1000\"\n", ":1:1: nic: ", {"not in this version of Transom yet"}},
      {"NineCpus", "cpus = 9\n", ":1:8: cpus: ", {"found 9", "an integer from 1 to 8"}},
      {"NameWithASlash", "name = \"../x\"\n", ":1:8: name: ", {"found \"../x\"", "letters, digits"}},
      {"EmptyName", "name = \"\"\n", ":1:8: name: ", {"1 to 63"}},
      {"MissingImage",
       "[[disk]]\npath = \"gone.raw\"\n",
       ":2:8: disk.0.path: ",
       {"gone.raw: No such file", "truncate -s 1G"}},
      {"ImageIsADirectory",
       "[[disk]]\npath = \"folder\"\n",
       ":2:8: disk.0.path: ",
       {"folder: is a directory", "raw image"}},
      {"ImageIsEmpty", "[[disk]]\npath = \"empty.raw\"\n", ":2:8: disk.0.path: ", {"is empty"}},
      {"ImageOfHalfASector",
       "[[disk]]\npath = \"odd.raw\"\n",
       ":2:8: disk.0.path: ",
       {"has 700 bytes", "multiple of 512"}},
      {"ImageIsAFifo", "[[disk]]\npath = \"fifo\"\n", ":2:8: disk.0.path: ", {"neither a file nor a block device"}},
      {"DiskWithoutPath", "[[disk]]\nas = \"ide\"\n", ":1:1: disk.0.path: ", {"is missing"}},
      {"OneImageTwice",
       "[[disk]]\npath = \"good.raw\"\n[[disk]]\npath = \"./link.raw\"\n",
       ":4:8: disk.1.path: ",
       {"is the image of disk0 already"}},
      {"FifthDisk",
       "[[disk]]\npath=\"a.raw\"\n[[disk]]\npath=\"b.raw\"\n[[disk]]\npath=\"c.raw\"\n[[disk]]\npath=\"d.raw\"\n[[disk]"
       "]\npath=\"good.raw\"\n",
       ":10:6: disk.4.path: ",
       {"fifth"}},
      {"NetworkDisk", "[[disk]]\npath = \"nbd://host\"\n", ":2:8: disk.0.path: ", {"not in this version"}},
      {"TwoDisksOfOneName",
       "[[disk]]\nname=\"a\"\npath=\"a.raw\"\n[[disk]]\nname=\"a\"\npath=\"b.raw\"\n",
       ":5:6: disk.1.name: ",
       {"another disk"}},
      {"MissingKernel", "[boot]\nkernel = \"gone\"\n", ":2:10: boot.kernel: ", {"gone: No such file"}},
      {"KernelIsNone", "[boot]\nkernel = \"text.so\"\n", ":2:10: boot.kernel: ", {"text.so"}},
      {"InitrdWithoutKernel", "[boot]\ninitrd = \"good.raw\"\n", ":2:10: boot.initrd: ", {"add boot.kernel"}},
      {"KernelAndFirmware",
       "[boot]\nkernel = \"good.raw\"\nfirmware = \"good.raw\"\n",
       ":3:12: boot.firmware: ",
       {"cannot be combined with boot.kernel"}},
      {"FirmwareTooSmall",
       "[boot]\nfirmware = \"text.so\"\n",
       ":2:12: boot.firmware: ",
       {"has 12 bytes", "64 KiB to 16 MiB"}},
      {"FirmwareIsADirectory", "[boot]\nfirmware = \"folder\"\n", ":2:12: boot.firmware: ", {"is a directory"}},
      {"UnknownBootOrder",
       "[boot]\norder = [\"disk\", \"tape\"]\n",
       ":2:9: boot.order: ",
       {"disk, cdrom, floppy, network"}},
      {"ThirdSerialPort",
       "[[serial]]\nto=\"none\"\n[[serial]]\nto=\"none\"\n[[serial]]\nto=\"none\"\n",
       ":1:1: serial: ",
       {"COM1 and COM2"}},
      {"StdioTwice",
       "[[serial]]\nto=\"stdio\"\n[[serial]]\nto=\"stdio\"\n",
       ":4:4: serial.1.to: ",
       {"another serial port's"}},
      {"SerialToNowhere",
       "[[serial]]\nto = \"tcp:1\"\n",
       ":2:6: serial.0.to: ",
       {"found \"tcp:1\"", "stdio, file:PATH, unix:PATH, none"}},
      {"SerialIntoNoFolder", "[[serial]]\nto = \"file:gone/log\"\n", ":2:6: serial.0.to: ", {"there is no folder"}},
      {"SerialOverAnImage",
       "[[serial]]\nto = \"file:good.raw\"\n[[disk]]\npath = \"good.raw\"\n",
       ":2:6: serial.0.to: ",
       {"is the file of disk0 already"}},
      {"SocketOverAFile", "[[serial]]\nto = \"unix:good.raw\"\n", ":2:6: serial.0.to: ", {"exists and is no socket"}},
      {"LogIntoADirectory",
       "[debug]\nfirmware_log = \"file:folder\"\n",
       ":2:16: debug.firmware_log: ",
       {"is a directory"}},
      {"UnknownInstance",
       "[placement]\nidee = \"dom0\"\n",
       ":2:8: placement.idee: ",
       {"no device of that name", "pic_pit, rtc, piix, ide"}},
      {"UnknownPlace",
       "[placement]\nide = \"cloud\"\n",
       ":2:7: placement.ide: ",
       {"found \"cloud\"", "hypervisor, dom0"}},
      {"UnknownServer", "[wake]\nide = \"spin\"\n", ":2:7: wake.ide: ", {"accepted: dom0"}},
      {"UnknownPlugin",
       "[[device]]\nplugin = \"nosuch\"\n",
       ":2:10: device.0.plugin: ",
       {"nosuch: no such file, and no such plugin in"}},
      {"DeviceWithoutPlugin", "[[device]]\nname = \"x\"\n", ":1:1: device.0.plugin: ", {"is missing"}},
      {"UnknownDeviceId",
       "[[device]]\nplugin = \"mmio_test\"\nid = \"org.example.x\"\n",
       ":3:6: device.0.id: ",
       {"no device \"org.example.x\"", "org.transom.mmio-test"}},
      {"PluginOfAnotherAbi",
       "[[device]]\nplugin = \"./abi2.so\"\n",
       ":2:10: device.0.plugin: ",
       {"abi2.so", "ABI major 2", "this host speaks 1"}},
      {"PluginIsText", "[[device]]\nplugin = \"./text.so\"\n", ":2:10: device.0.plugin: ", {"text.so", "ELF"}},
      {"PluginIsEmpty", "[[device]]\nplugin = \"./empty.raw\"\n", ":2:10: device.0.plugin: ", {"empty.raw"}},
      {"PluginIsTruncated",
       "[[device]]\nplugin = \"./short.so\"\n",
       ":2:10: device.0.plugin: ",
       {"short.so", "truncated"}},
      {"PluginIsADirectory", "[[device]]\nplugin = \"./folder\"\n", ":2:10: device.0.plugin: ", {"folder"}},
      {"LibraryThatWritesWhenOpened",
       "[[device]]\nplugin = \"./bare.so\"\n",
       ":2:10: device.0.plugin: ",
       {"bare.so", "manifest"}},
      {"GoodPluginThatWritesWhenOpened",
       "cpus = 9\n[[device]]\nplugin = \"./witness.so\"\n",
       ":1:8: cpus: ",
       {"found 9"}},
      {"TwoDevicesOnOnePort",
       "[[device]]\nplugin = \"debug\"\n[[device]]\nplugin = \"debug\"\nname = \"again\"\n",
       ":3:1: device.1.config.base.exit: ",
       {"ports f4h", "device0 (region exit)"}},
      {"DeviceOnAPortOfTheBoard",
       "[[device]]\nplugin = \"uart\"\nconfig = { \"base.regs\" = 0x64 }\n",
       ":3:26: device.0.config.base.regs: ",
       {"ports 64h–6bh", "ps2"}},
      {"DeviceOverRam",
       "[[device]]\nplugin = \"mmio_test\"\nconfig = { \"base.mmio\" = 0x10000 }\n",
       ":3:26: device.0.config.base.mmio: ",
       {"guest RAM"}},
      {"DeviceBeyondThePorts",
       "[[device]]\nplugin = \"uart\"\nconfig = { \"base.regs\" = 0xfffd }\n",
       ":3:26: device.0.config.base.regs: ",
       {"does not fit at fffdh"}},
      {"UnknownRegion",
       "[[device]]\nplugin = \"uart\"\nconfig = { \"base.register\" = 0x2e8 }\n",
       ":3:30: device.0.config.base.register: ",
       {"no region of that name", "accepted: regs"}},
      {"LineBeyondTheIoapic",
       "[[device]]\nplugin = \"uart\"\nconfig = { \"base.regs\" = 0x2e8, \"irq.intr\" = 24 }\n",
       ":3:46: device.0.config.irq.intr: ",
       {"found 24", "a line from 0 to 23"}},
      {"UnknownDeviceKey",
       "[[device]]\nplugin = \"debug\"\nconfig = { exi = true }\n",
       ":3:18: device.0.config.exi: ",
       {"unknown key", "exit, e9, firmware_log"}},
      {"WrongDeviceValue",
       "[[device]]\nplugin = \"debug\"\nconfig = { exit = \"perhaps\" }\n",
       ":3:19: device.0.config.exit: ",
       {"perhaps"}},
      {"ArrayAsDeviceValue",
       "[[device]]\nplugin = \"debug\"\nconfig = { exit = [1] }\n",
       ":3:19: device.0.config.exit: ",
       {"found an array", "a string, an integer or a boolean"}},
      {"NameOfABoardDevice",
       "[[device]]\nplugin = \"mmio_test\"\nname = \"rtc\"\n",
       ":3:8: device.0.name: ",
       {"a device of the board"}},
      {"TooManyDevices", many_devices(), ":1:1: device: ", {"devices are placed in dom0", "at most 16 fit"}},
      {"GdbElsewhere",
       "[debug]\ngdb = \"0.0.0.0:1234\"\n",
       ":2:7: debug.gdb: ",
       {"0.0.0.0", "only 127.0.0.1", "ssh -L 1234"}},
      {"GdbAtNoPort", "[debug]\ngdb = \"127.0.0.1:65536\"\n", ":2:7: debug.gdb: ", {"unix:PATH, 127.0.0.1:PORT"}},
      {"GdbNowhere", "[debug]\ngdb = \"stdio\"\n", ":2:7: debug.gdb: ", {"found \"stdio\"", "unix:PATH"}},
      {"GdbOverAFile", "[debug]\ngdb = \"unix:good.raw\"\n", ":2:7: debug.gdb: ", {"exists and is no socket"}},
      {"GdbOfAnotherProcessor",
       "[debug]\ngdb_architecture = \"arm\"\n",
       ":2:20: debug.gdb_architecture: ",
       {"arm", "i386:x86-64, i386, i8086"}},
      {"WaitForNobody", "[debug]\nwait = true\n", ":2:8: debug.wait: ", {"gdb is needed"}},
      {"CrashPoint", "[debug]\ncrash = \"ide:later:1\"\n", ":2:9: debug.crash: ", {"before-entry", "DEVICE:POINT:N"}},
  };
  return WRONG;
}

// Everything the configurations of the table name.
void furnish(const Folder& folder) {
  for (const char* name : {"good.raw", "a.raw", "b.raw", "c.raw", "d.raw"}) folder.image(name, 8);
  fs::create_symlink("good.raw", folder / "link.raw");
  folder.write("empty.raw", "");
  folder.write("odd.raw", std::string(700, 'x'));
  folder.write("text.so", "hello world\n");
  fs::create_directory(folder / "folder");
  ::mkfifo((folder / "fifo").c_str(), 0600);
  std::string library = read_file(plugin("mmio_test.so"));
  folder.write("short.so", library.substr(0, library.size() / 2));
  const size_t manifest = library.find(VDEV_MANIFEST_MAGIC);
  ASSERT_NE(manifest, std::string::npos);
  const std::uint16_t other = VDEV_ABI_MAJOR + 1;
  std::memcpy(library.data() + manifest + offsetof(vdev_manifest_header, abi_major), &other, sizeof other);
  folder.write("abi2.so", library);
  for (const char* name : {"bare.so", "witness.so"}) fs::copy(std::string(CONTROL_GUESTS) + "/" + name, folder / name);
}

class WrongConfig : public testing::TestWithParam<Wrong> {};

TEST_P(WrongConfig, IsRefusedWithItsPlaceAndTouchesNothing) {
  const Folder folder;
  ASSERT_NO_FATAL_FAILURE(furnish(folder));
  const std::string file = folder.write("vm.toml", GetParam().text);
  const std::string witness = (folder / "witness").string();
  const auto before = folder.inventory();
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"run", file, "--timeout", "20"}, {"config", "check", file}}) {
    Transom::Options options;
    options.environment = {{"CONTROL_TEST_WITNESS", witness}};
    const Finished f = run_transom(folder, command, options);
    EXPECT_EQ(f.status, 2) << f.err;
    EXPECT_EQ(f.out, "");
    EXPECT_THAT(f.err, HasSubstr(file + GetParam().place));
    for (const std::string& text : GetParam().says) EXPECT_THAT(f.err, HasSubstr(text));
    EXPECT_EQ(folder.inventory(), before); // no socket, no file, no image was touched
  }
}

INSTANTIATE_TEST_SUITE_P(Table, WrongConfig, testing::ValuesIn(table()),
                         [](const auto& about) { return about.param.name; });

// The control for the library that leaves a trace: opening it does.
TEST(Config, OpeningTheWitnessLeavesATrace) {
  const Folder folder;
  const std::string trace = (folder / "witness").string();
  ::setenv("CONTROL_TEST_WITNESS", trace.c_str(), 1);
  void* library = ::dlopen((std::string(CONTROL_GUESTS) + "/witness.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << ::dlerror();
  EXPECT_TRUE(fs::exists(trace));
  ::dlclose(library);
}

TEST(Config, AllErrorsOfMeaningComeAtOnce) {
  const Folder folder;
  const std::string file = folder.write(
      "vm.toml", "memory = 0\ncpus = 9\nnmae = \"x\"\n[[disk]]\npath = \"gone.raw\"\n[[serial]]\nto = \"x\"\n");
  const Finished f = run_transom(folder, {"config", "check", file});
  EXPECT_EQ(f.status, 2);
  for (const char* place :
       {":1:10: memory: ", ":2:8: cpus: ", ":3:1: nmae: ", ":5:8: disk.0.path: ", ":7:6: serial.0.to: "})
    EXPECT_THAT(f.err, HasSubstr(file + place));
}

TEST(Config, AGoodFileIsAccepted) {
  const Folder folder;
  ASSERT_NO_FATAL_FAILURE(furnish(folder));
  const std::string file = folder.write("vm.toml", R"(
name = "good"
memory = "64M"
cpus = 1
cpu = "soft"
cpu_model = "v2"
rtc = "localtime"
on_reboot = "exit"
[boot]
order = ["disk", "cdrom"]
[[disk]]
name = "root"
path = "good.raw"
cache = "writethrough"
[[disk]]
path = "a.raw"
readonly = true
[[serial]]
to = "file:serial.log"
[[serial]]
to = "unix:serial.sock"
[placement]
ide = "hypervisor"
[wake]
dom0 = "sleep"
[debug]
exit = true
e9 = "stdio"
firmware_log = "file:seabios.log"
[[device]]
plugin = "uart"
name = "com4"
config = { "base.regs" = 0x2e8, "irq.intr" = 3 }
[[device]]
plugin = "./witness.so"
config = { "base.period" = 0x5a0 }
)");
  Transom::Options options;
  options.environment = {{"CONTROL_TEST_WITNESS", (folder / "witness").string()}};
  const auto before = folder.inventory();
  const Finished f = run_transom(folder, {"config", "check", file}, options);
  EXPECT_EQ(f.status, 0) << f.err;
  EXPECT_EQ(f.out, file + ": good\n");
  EXPECT_EQ(folder.inventory(), before); // also a good plugin is read, not opened
}

TEST(Config, ASettingOfTheCommandLineIsNamedInItsError) {
  const Folder folder;
  const std::string file = folder.write("vm.toml", "memory = \"64M\"\n");
  Finished f = run_transom(folder, {"run", file, "--set", "disk.0.path=gone.raw"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("--set disk.0.path: disk.0.path: " + (folder / "gone.raw").string()));
  f = run_transom(folder, {"run", file, "--memory", "nothing"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("--memory: memory: found 'nothing'"));
  f = run_transom(folder, {"run", file, "--set", "disk.3.path=x"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("there is no disk.3"));
  f = run_transom(folder, {"run", file, "--set", "memory.x=3"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("memory is not a table"));
}

TEST(Config, ATableFromTheCommandLineIsNamedAllTheWayDown) {
  const Folder folder;
  const std::string file = folder.write("vm.toml", "memory = \"64M\"\n");
  const Finished f = run_transom(folder, {"run", file, "--set", "disk=[{path=\"gone.raw\"}]"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("--set disk: disk.0.path: "));
}

TEST(Config, TheCommandLineWinsOverTheFile) {
  const Folder folder;
  const std::string file = folder.write("vm.toml", "memory = 0\n[boot]\nfirmware = \"gone\"\n");
  const Finished f = run_transom(folder, {"run", file, "--memory", "16M", "--set", "boot.firmware=" + guest("off")});
  EXPECT_EQ(f.status, 0) << f.err;
}

TEST(Config, AFileThatIsNotThereIsBadUsage) {
  const Folder folder;
  Finished f = run_transom(folder, {"run", "gone.toml"});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("gone.toml: no such file"));
  f = run_transom(folder, {"config", "check", folder.path().string()});
  EXPECT_EQ(f.status, 2);
  EXPECT_THAT(f.err, HasSubstr("is a directory"));
  EXPECT_EQ(run_transom(folder, {"run"}).status, 2);
  EXPECT_EQ(run_transom(folder, {"rnu"}).status, 2);
  EXPECT_EQ(run_transom(folder, {"run", "--nonsense"}).status, 2);
}

} // namespace
} // namespace transom::test
