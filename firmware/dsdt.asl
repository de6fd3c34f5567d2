// The PC's devices as ACPI sees them. One image serves every machine: RAMT, CPUS and DEVS are overwritten when the
// tables are built (acpi.cc), and everything that varies is a method that looks at them.

DefinitionBlock ("", "DSDT", 1, "TRNSOM", "TRANSOM", 0x00000001)
{
    // Markers, each a DWord constant, until acpi.cc replaces them.
    Name (RAMT, 0x54524D01)     // first address above RAM below 4 GiB
    Name (CPUS, 0x54524D02)     // number of CPUs
    Name (DEVS, 0x54524D03)     // optional devices that exist: one bit each, see HERE

    Name (\_S5, Package (4) { 0, 0, 0, 0 })

    // _STA of the optional device with this bit in DEVS: 0 COM1, 1 COM2, 2 8042, 3 floppy controller, 4 pvpanic.
    Method (HERE, 1)
    {
        If ((DEVS >> Arg0) & 1) { Return (0x0F) }
        Return (0)
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, 0)

            Name (CRES, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0000, 0x0CF7, 0, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                             0, 0x000A0000, 0x000BFFFF, 0, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0xC0000000, 0xFEBFFFFF, 0, 0x3EC00000, , , HOLE)
            })
            Method (_CRS, 0, Serialized)
            {
                CreateDWordField (^CRES, ^HOLE._MIN, HMIN)
                CreateDWordField (^CRES, ^HOLE._LEN, HLEN)
                HMIN = RAMT
                HLEN = 0xFEC00000 - RAMT
                Return (CRES)
            }

            // 32 slots with 4 pins: the link is (slot + pin - 1) mod 4 of A, B, C, D, as the PIIX3 board is wired.
            // Slot 1 pin A is the power management function, hard-wired to IRQ 9.
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0
                While (Local1 < 128)
                {
                    Local2 = ((Local1 >> 2) + Local1) & 3
                    If (Local1 == 4) { Local3 = Package (4) { 0, 0, LNKS, 0 } }
                    ElseIf (Local2 == 0) { Local3 = Package (4) { 0, 0, LNKD, 0 } }
                    ElseIf (Local2 == 1) { Local3 = Package (4) { 0, 0, LNKA, 0 } }
                    ElseIf (Local2 == 2) { Local3 = Package (4) { 0, 0, LNKB, 0 } }
                    Else { Local3 = Package (4) { 0, 0, LNKC, 0 } }
                    Local3[0] = ((Local1 >> 2) << 16) | 0xFFFF
                    Local3[1] = Local1 & 3
                    Local0[Local1] = Local3
                    Local1++
                }
                Return (Local0)
            }

            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                OperationRegion (ROUT, PCI_Config, 0x60, 4)
                Field (ROUT, ByteAcc, NoLock, Preserve) { RQRA, 8, RQRB, 8, RQRC, 8, RQRD, 8 }

                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Method (_STA) { Return (HERE (2)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x60, 0x60, 1, 1)
                        IO (Decode16, 0x64, 0x64, 1, 1)
                        IRQNoFlags () { 1 }
                    })
                }
                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Method (_STA) { Return (HERE (2)) }
                    Name (_CRS, ResourceTemplate () { IRQNoFlags () { 12 } })
                }
                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 1)
                    Method (_STA) { Return (HERE (0)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3F8, 0x3F8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                }
                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 2)
                    Method (_STA) { Return (HERE (1)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x2F8, 0x2F8, 1, 8)
                        IRQNoFlags () { 3 }
                    })
                }
                Device (FDC0)
                {
                    Name (_HID, EisaId ("PNP0700"))
                    Method (_STA) { Return (HERE (3)) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3F2, 0x3F2, 1, 4)
                        IO (Decode16, 0x3F7, 0x3F7, 1, 1)
                        IRQNoFlags () { 6 }
                        DMA (Compatibility, NotBusMaster, Transfer8) { 2 }
                    })
                }
                // Ports 70h and 71h alone: the second CMOS bank at 72h does not exist.
                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x70, 0x70, 1, 2)
                        IRQNoFlags () { 8 }
                    })
                }
            }
        }

        // PIIX3 PIRQ route registers, 60h–63h of the ISA bridge: bit 7 = not routed, else the IRQ.
        Method (RSTA, 1)
        {
            If (Arg0 & 0x80) { Return (0x09) }
            Return (0x0B)
        }
        Name (LRES, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 0 }
        })
        Method (RCRS, 1, Serialized)
        {
            CreateDWordField (LRES, 5, IRQN)
            IRQN = 0
            If (Arg0 < 0x80) { IRQN = Arg0 }
            Return (LRES)
        }
        Name (RPRS, ResourceTemplate ()
        {
            Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
        })
        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0)
            Method (_STA) { Return (RSTA (\_SB.PCI0.ISA.RQRA)) }
            Method (_PRS) { Return (RPRS) }
            Method (_CRS) { Return (RCRS (\_SB.PCI0.ISA.RQRA)) }
            Method (_DIS) { \_SB.PCI0.ISA.RQRA |= 0x80 }
            Method (_SRS, 1, Serialized)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.ISA.RQRA = IRQN
            }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Method (_STA) { Return (RSTA (\_SB.PCI0.ISA.RQRB)) }
            Method (_PRS) { Return (RPRS) }
            Method (_CRS) { Return (RCRS (\_SB.PCI0.ISA.RQRB)) }
            Method (_DIS) { \_SB.PCI0.ISA.RQRB |= 0x80 }
            Method (_SRS, 1, Serialized)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.ISA.RQRB = IRQN
            }
        }
        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Method (_STA) { Return (RSTA (\_SB.PCI0.ISA.RQRC)) }
            Method (_PRS) { Return (RPRS) }
            Method (_CRS) { Return (RCRS (\_SB.PCI0.ISA.RQRC)) }
            Method (_DIS) { \_SB.PCI0.ISA.RQRC |= 0x80 }
            Method (_SRS, 1, Serialized)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.ISA.RQRC = IRQN
            }
        }
        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 3)
            Method (_STA) { Return (RSTA (\_SB.PCI0.ISA.RQRD)) }
            Method (_PRS) { Return (RPRS) }
            Method (_CRS) { Return (RCRS (\_SB.PCI0.ISA.RQRD)) }
            Method (_DIS) { \_SB.PCI0.ISA.RQRD |= 0x80 }
            Method (_SRS, 1, Serialized)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.ISA.RQRD = IRQN
            }
        }
        Device (LNKS)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 4)
            Name (_STA, 0x0B)
            Name (SRES, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 9 }
            })
            Method (_PRS) { Return (SRES) }
            Method (_CRS) { Return (SRES) }
            Method (_DIS) {}
            Method (_SRS, 1) {}
        }

        // What the board decodes and no device above names.
        Device (MRES)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x00B2, 0x00B2, 1, 2)     // APM control and status
                IO (Decode16, 0x04D0, 0x04D0, 1, 2)     // interrupt edge/level control
                IO (Decode16, 0xAFE0, 0xAFE0, 1, 4)     // GPE0
            })
        }
        Device (FWCF)
        {
            Name (_HID, "QEMU0002")
            Name (_STA, 0x0B)
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0510, 0x0510, 1, 0x0C) })
        }
        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Method (_STA) { Return (HERE (4)) }
            Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0505, 0x0505, 1, 1) })
        }

        // _UID is the processor UID of the MADT.
        Method (CPUP, 1)
        {
            If (Arg0 < CPUS) { Return (0x0F) }
            Return (0)
        }
        Device (CPU0) { Name (_HID, "ACPI0007") Name (_UID, 0) Method (_STA) { Return (CPUP (0)) } }
        Device (CPU1) { Name (_HID, "ACPI0007") Name (_UID, 1) Method (_STA) { Return (CPUP (1)) } }
        Device (CPU2) { Name (_HID, "ACPI0007") Name (_UID, 2) Method (_STA) { Return (CPUP (2)) } }
        Device (CPU3) { Name (_HID, "ACPI0007") Name (_UID, 3) Method (_STA) { Return (CPUP (3)) } }
        Device (CPU4) { Name (_HID, "ACPI0007") Name (_UID, 4) Method (_STA) { Return (CPUP (4)) } }
        Device (CPU5) { Name (_HID, "ACPI0007") Name (_UID, 5) Method (_STA) { Return (CPUP (5)) } }
        Device (CPU6) { Name (_HID, "ACPI0007") Name (_UID, 6) Method (_STA) { Return (CPUP (6)) } }
        Device (CPU7) { Name (_HID, "ACPI0007") Name (_UID, 7) Method (_STA) { Return (CPUP (7)) } }
    }
}
