# What is installed, and the Debian packages: transom (programs and plugins) and transom-dev (the device SDK).
include(GNUInstallDirs)

# The target 'product' is all that a domain needs, without tests.
set(programs transom transom-hypervisor transom-dom0)
set(plugins pic_pit rtc piix ide uart ps2 debug pvpanic)
list(TRANSFORM plugins PREPEND plugin_)
add_custom_target(product)
add_dependencies(product ${programs} ${plugins})

install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT transom)
install(TARGETS ${plugins} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/transom/plugins COMPONENT transom)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT transom)

# Where 'transom' finds its plugins when LIBDIR is Debian's lib/<multiarch>; lib it knows.
if(CMAKE_LIBRARY_ARCHITECTURE)
  target_compile_definitions(transom_control PRIVATE TRANSOM_MULTIARCH="${CMAKE_LIBRARY_ARCHITECTURE}")
endif()

set(CPACK_PACKAGE_NAME transom)
set(CPACK_PACKAGE_VENDOR "Transom")
set(CPACK_PACKAGE_CONTACT "The Transom developers <transom@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Runs PC operating systems on Xen's HVM I/O architecture")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_COMPONENTS_ALL transom vdev)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_TRANSOM_PACKAGE_NAME transom)
set(CPACK_DEBIAN_TRANSOM_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TRANSOM_PACKAGE_DEPENDS seabios)
set(CPACK_DEBIAN_VDEV_PACKAGE_NAME transom-dev)
set(CPACK_COMPONENT_VDEV_DESCRIPTION "Headers, bench and CMake package for device models of Transom")
include(CPack)
